// Package integration holds the tests of the built binary bin/bob. They drive
// it as its users do: as an unprivileged user, through the command line,
// against a real registry, and look at the result with programs that share no
// code with bob (skopeo, umoci, tar, buildah and the flattener in harness).
//
// # Adding a case
//
// A directory below testdata/cases is one build:
//
//	Dockerfile     what is built; starts with "ARG REGISTRY" and "FROM $REGISTRY/busybox"
//	context/       the build context; may be missing
//	setup.sh       optional, run by sh in the copied context before the build,
//	               for what git can't carry: empty directories, odd modes, fifos
//	flags          optional, more flags for bob, one a line
//	buildah.txt    optional, "skip: why" or "allow: <path prefix or config
//	               field>: why", a line each, for the comparison with buildah
//	expect.txtar   what must come out: sections config, files, layers, output
//
// Sections that expect.txtar lacks are not compared. Write the Dockerfile, run
//
//	go test ./integration -run TestCases/NAME$ -update
//
// and read what was written before committing it: it is a claim about what
// the language means, and not just what bob did. The files section lists what
// differs from the base image, the layers section what each layer's tar
// holds; "output" holds one regular expression a line for standard error.
//
// bob runs in the case's workbench, a directory of its own with the copied
// context in it, and paths in flags are relative to that. What a flag names
// beside the context is made by setup.sh, which runs in context/:
//
//	setup.sh:  printf s3cret > ../token && mkdir ../other && echo x > ../other/f
//	flags:     --secret=id=token,src=token
//	           --build-context=other=other
//
// A Dockerfile that says "ARG WEB" gets there the URL at which the directory www
// beside context/ is served, and so do flags that say $WEB: files, and git
// repositories whose names end in .git, in the ways that [harness.Site] tells of.
// setup.sh makes them, a common one by ../../repository.sh; its commits have the
// same hashes everywhere.
//
//	setup.sh:    mkdir -p ../www && echo x > ../www/x && touch -d @1000000000 ../www/x
//	             git init -q ../www/r.git && cd ../www/r.git && …
//	Dockerfile:  ARG WEB
//	             ADD $WEB/x $WEB/r.git#main /
//
// A secret from a variable needs --secret=id=NAME,env=HOME, of a variable that
// every run has. An SSH agent doesn't outlive setup.sh: --ssh=default=key takes
// the key that ssh-keygen made in ../key, without a passphrase; what needs an agent at
// work is a script or a test in Go.
//
// # Comparing with buildah
//
// "make oracle" builds every case with buildah too, and fails for a difference
// that the case's buildah.txt does not allow, or that it allows and that isn't
// there. A reason names BuildKit's rule: the file of its source or the section
// of its documentation that says that bob is right. A case with flags that
// buildah 1.28 lacks is skipped in writing.
//
// # Cold against warm
//
// TestWarm builds cases with an empty cache, with that of the build before, and with
// another empty one, and wants the same manifest each time. With
//
//	go test ./integration -run 'TestWarm$' -timeout 30m -warm
//
// it takes all cases in place of a few.
//
// A txtar file below testdata/script is a story told on the command line; see
// TestScripts for its commands.
//
// # Counts
//
// TestCounts counts what a few builds do, system calls and requests, and has a table of the
// most that each may do. A change that makes builds do less is told by a failure too, so
// that the table is lowered. What strace wrote is kept with
//
//	go test ./integration -run 'TestCounts$' -traces DIRECTORY
//
// a directory for each build with a file for each thread. The system calls are those of
// bob in a sandbox and with overlays, traced by root; elsewhere the test is skipped.
//
// # Everywhere
//
// TestEverywhere builds four Dockerfiles in a few restricted environments, and with
// -everywhere ("make test-everywhere") all in all that it can make, which takes root.
// A line in its list of environments is one; what is built there must be what an
// ordinary user builds.
//
// # Conformance
//
// TestConformance runs both conformance suites of OCI's distribution-spec against "bob
// registry serve", and what pulls and pushes against "bob proxy". They are Go modules,
// pinned below .ci/conformance. What doesn't pass is listed in the test with the reason, and
// what is listed must not pass.
//
// # Machine
//
// As root the tests create the user bobtest with ranges in /etc/subuid and run
// bob as that user, and bobtest-proxy for bob proxy; as anyone else bob runs as
// that one. What a test lacks makes it skip with the reason. Variables that the tests read:
//
//	BOB_TEST_REGISTRY   host:port of a registry without authentication, in
//	                    place of Debian's docker-registry on a free port
//	XDG_CACHE_HOME      the Debian base image is kept in bob-test below it
package integration
