#!/bin/sh
# fuzz.sh TIME: run every fuzz target of the module for TIME, one after another, and
# name at the end those that found something. TAGS are the build tags.
# An input of some targets is a whole build: making it smaller must not take the time.
set -eu
time=${1:-20s}
found=
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do
	listed=$(go test -tags "${TAGS-}" -list '^Fuzz' "$dir")
	for target in $(echo "$listed" | grep '^Fuzz'); do
		echo "== $dir $target"
		go test -tags "${TAGS-}" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "$dir" </dev/null ||
			found="$found $dir:$target"
	done
done
if [ -n "$found" ]; then
	echo "fuzz: found something:$found" >&2
	exit 1
fi
