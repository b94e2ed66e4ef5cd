# Every target is described by the comment after its name; "make help" lists them.

TAGS := seccomp osusergo netgo static_build exclude_graphdriver_btrfs exclude_graphdriver_zfs exclude_disk_quota
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -linkmode external -extldflags -static -X main.version=$(VERSION)
FUZZTIME ?= 20s
# The linters have a module of their own: their dependencies would raise the versions of bob's.
TOOL := go tool -modfile=.ci/tools/go.mod

export CGO_ENABLED := 1

.DEFAULT_GOAL := build
.PHONY: build help test lint vulncheck fmt demo bench bench-compare fuzz oracle test-everywhere setup-build setup-test clean

# The program that starts containers is built first and embedded, see executor/sandbox/internal/entry.
build: setup-build ## build the static binary bin/bob (the default)
	go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o bin/init ./executor/sandbox/internal/entry/initprogram
	@printf '{"Replace": {"%s": "%s"}}\n' '$(CURDIR)/executor/sandbox/internal/entry/program' '$(CURDIR)/bin/init' > bin/overlay.json
	go build -trimpath -overlay bin/overlay.json -tags '$(TAGS) smallinit' -ldflags '$(LDFLAGS)' -o bin/bob ./cmd/bob

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

# The tests of these start bob, or themselves, thousands of times. The race detector makes each start
# take long; of the former it sees nothing.
STARTING := /(executor/(doctor|isolation|sandbox)|integration)($$|/)

test: setup-test ## install what the tests need, where that is allowed, and run all of them
	go test -race -shuffle=on -timeout 30m -tags '$(TAGS)' $$(go list -tags '$(TAGS)' ./... | grep -vE '$(STARTING)')
	go test -shuffle=on -timeout 30m -tags '$(TAGS)' $$(go list -tags '$(TAGS)' ./... | grep -E '$(STARTING)')
	go test -race -timeout 30m -tags '$(TAGS)' -run '^(TestConcurrentRuns|TestPrivate|TestCancel|TestHeldPipe|TestExamine)$$' ./executor/doctor ./executor/sandbox ./executor/sandbox/internal/stream

lint: setup-build ## vet, staticcheck, gofumpt and the rest of .golangci.yml; go.mod must be tidy
	$(TOOL) golangci-lint config verify
	$(TOOL) golangci-lint run --build-tags '$(TAGS)' ./...
	go mod tidy -diff
	@$(MAKE) --no-print-directory vulncheck
	sh -n integration/*.sh integration/testdata/*.sh integration/demo/*.sh .ci/run

vulncheck: setup-build ## look for known vulnerabilities in what bob calls; skipped where their database can't be had
	@if go mod download -modfile=.ci/vuln.mod golang.org/x/vulndb; then \
		go run -modfile=.ci/vuln.mod ./.ci/vuln -tags '$(TAGS)' ./...; \
	else echo 'vulncheck: skipped, the database is not to be had here' >&2; fi

fmt: ## format the code as lint wants it
	$(TOOL) golangci-lint fmt ./...

demo: build ## build an example as an unprivileged user into bob's own registry
	integration/demo/demo.sh

bench: build ## compare bob with other builders and with floors, and print tables: see integration/README.md; BENCH='-only W1 -runs 1'
	integration/setup.sh test
	go run ./integration/bench $(BENCH)
	$(if $(findstring -only,$(BENCH)),,go test -tags '$(TAGS)' -run '^$$' -bench BenchmarkProxy -benchtime 1x ./integration)

bench-compare: ## compare two files that BENCH='-bench FILE' made: OLD=FILE NEW=FILE
	$(TOOL) benchstat $(OLD) $(NEW)

oracle: setup-test ## compare bob with Debian's buildah on every case of the integration tests
	cd integration && go test -timeout 30m -tags '$(TAGS)' -run '^TestCases$$' -oracle

test-everywhere: setup-test ## build the same in every environment that can be made here, and print a table
	go test -v -timeout 60m -tags '$(TAGS)' -run '^TestEverywhere$$' ./integration -everywhere

fuzz: setup-test ## run each fuzz target for FUZZTIME
	TAGS='$(TAGS)' integration/fuzz.sh $(FUZZTIME)

setup-build: ## install the C compiler and libseccomp where that is allowed
	@integration/setup.sh build

setup-test: ## install the programs that the tests drive where that is allowed
	@integration/setup.sh build
	@integration/setup.sh test

clean: ## remove what was built
	rm -rf bin
