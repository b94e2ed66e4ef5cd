#!/bin/sh
# fuzz.sh TIME: run every fuzz target of the module for TIME, one after another.
# An input of some targets is a whole build: making it smaller must not take the time.
set -eu
time=${1:-20s}
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u | while read -r dir; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$dir"/*_test.go | sort -u | while read -r target; do
		echo "== $dir $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$dir" </dev/null
	done
done
