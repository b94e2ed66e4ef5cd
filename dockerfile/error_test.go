package dockerfile_test

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bobbuild/bob/dockerfile"
)

// TestErrors checks that each mistake is reported by Parse or Plan as an Error
// at its lines.
func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		start, end int
		want       string
	}{
		// The file as a whole.
		{"empty", "", 1, 1, "the file has no instructions"},
		{"blank", "\n\n  \n", 3, 3, "the file has no instructions"},
		{"comments only", "# a\n# b\n", 2, 2, "the file has no instructions"},
		{"comments without an end", "# a\n# b\n# c", 3, 3, "the file has no instructions"},
		{"newline", "\n", 1, 1, "the file has no instructions"},
		{"no FROM", "ARG A=1\n", 1, 1, "no FROM"},
		{"RUN before FROM", "ARG A\nRUN x\nFROM a\n", 2, 2, "RUN before the first FROM"},
		{"long line", "FROM a\nRUN " + strings.Repeat("x", 70000), 2, 2, "longer than 65535 bytes"},
		{"not UTF-8", "FROM a\nENV A=\xff\n", 2, 2, "UTF-8"},
		{"NUL", "FROM a\nENV A=\x00\n", 2, 2, "UTF-8"},

		// Directives.
		{"foreign frontend", "# syntax=foobar\nFROM a\n", 1, 1, "syntax foobar is another frontend"},
		{"mirrored frontend", "#!/x\n# syntax=evil.example/docker/dockerfile:1\nFROM a\n", 2, 2, "evil.example/docker/dockerfile:1"},
		{"JSON syntax", `{"syntax": "foo"}`, 1, 1, "syntax foo is another frontend"},
		{"escape", "# escape=x\nFROM a\n", 1, 1, `escape "x" must be`},
		{"escape twice", "# escape=`\n# escape=`\nFROM a\n", 2, 2, "only one escape parser directive"},
		{"check option", "# check=foo=bar\nFROM a\n", 1, 1, `invalid check option "foo"`},
		{"check option after a shebang", "#!/x\n# check=foo=bar\nFROM a\n", 2, 2, `invalid check option "foo"`},

		// Instructions and flags.
		{"unknown instruction", "FROM a\nRNU x\n", 2, 2, "unknown instruction: RNU (did you mean RUN?)"},
		{"unknown instruction in lower case", "from a\nrnu x\n", 2, 2, "unknown instruction: rnu (did you mean run?)"},
		{"unknown instruction like none", "FROM a\nAPT-GET x\n", 2, 2, "unknown instruction: APT-GET"},
		{"unknown flag", "FROM a\nCOPY --chwn=1 a b\n", 2, 2, "unknown flag: --chwn (did you mean chown?)"},
		{"flag of FROM", "FROM --plat=x a\n", 1, 1, "unknown flag: --plat"},
		{"flag without value", "FROM a\nCOPY --from a b\n", 2, 2, "missing a value on flag: --from"},
		{"flag of RUN", "FROM a\nRUN --networ=host a\n", 2, 2, "did you mean network?"},
		{"network", "FROM a\nRUN --network=bridge a\n", 2, 2, `invalid network mode "bridge"`},
		{"env", "FROM a\nenv\n", 2, 2, "ENV requires at least one argument"},
		{"env pair", "FROM a\nENV a=b c\n", 2, 2, "can't find = in"},
		{"several lines", "FROM a\nENV a=b \\\n  c\nRUN x\n", 2, 3, "can't find = in"},
		{"heredoc end", "FROM a\nRUN <<EOF\nx\n", 2, 3, "unterminated heredoc"},
		{"heredoc destination", "FROM a\nCOPY a <<EOF\nx\nEOF\n", 2, 4, "cannot accept a heredoc as a destination"},
		{"heredoc name", "FROM a\nCOPY <<a/b /x\nx\na/b\n", 2, 4, `"a/b" is no name for a file`},
		{"script name", "FROM a\nRUN <<../b\n#!/bin/sh\n../b\n", 2, 4, `"../b" is no name for a file`},
		{"COPY without source", "FROM a\nCOPY a\n", 2, 2, "COPY requires at least two arguments"},
		{"JSON numbers", "FROM a\nCMD [1]\n", 2, 2, "arrays must be comprised of strings only"},
		{"SHELL", "FROM a\nSHELL bash -c\n", 2, 2, "JSON form"},
		{"empty RUN in JSON", "FROM a\nRUN []\n", 2, 2, "RUN [] requires a command"},
		{"HEALTHCHECK", "FROM a\nHEALTHCHECK CDM x\n", 2, 2, "Unknown type"},
		{"STOPSIGNAL", "FROM a\nSTOPSIGNAL SIGFOO\n", 2, 2, "invalid signal: SIGFOO"},
		{"EXPOSE", "FROM a\nEXPOSE 80/tpc\n", 2, 2, "invalid protocol tpc"},
		{"EXPOSE number", "FROM a\nEXPOSE 70000\n", 2, 2, "no number from 0 to 65535"},
		{"EXPOSE range", "FROM a\nEXPOSE 9-8\n", 2, 2, "ends before it begins"},
		{"ONBUILD ONBUILD", "FROM a\nONBUILD ONBUILD RUN x\n", 2, 2, "isn't allowed"},
		{"ONBUILD FROM", "FROM a\nONBUILD FROM x\n", 2, 2, "FROM isn't allowed as an ONBUILD trigger"},
		{"ONBUILD MAINTAINER", "FROM a\nONBUILD MAINTAINER x\n", 2, 2, "MAINTAINER isn't allowed"},
		{"trigger", "FROM a AS b\nONBUILD COPY --x=1 a b\nFROM b\n", 3, 3, "unknown flag: --x"},
		{"chmod", "FROM a\nCOPY --chmod=999 a b\n", 2, 2, "invalid chmod parameter: '999'"},
		{"chmod too large", "FROM a\nADD --chmod=10000 a b\n", 2, 2, "invalid chmod parameter"},
		{"variable", "FROM a\nENV A=${B\n", 0, 0, ""}, // found by Steps, see TestStepErrors

		// Mounts.
		{"mount type", "FROM a\nRUN --mount=type=chace,target=/x \\\n  y\n", 2, 3, `unsupported mount type "chace" (did you mean cache?)`},
		{"mount key", "FROM a\nRUN --mount=type=cache,traget=/x y\n", 2, 2, "unexpected key 'traget' in 'traget=/x' (did you mean target?)"},
		{"mount sharing", "FROM a\nRUN --mount=type=cache,target=/x,sharing=lokced y\n", 2, 2, `unsupported sharing value "lokced" (did you mean locked?)`},
		{"mount field", "FROM a\nRUN --mount=type=cache,target y\n", 2, 2, "invalid field 'target' must be a key=value pair"},
		{"mount size", "FROM a\nRUN --mount=type=bind,target=/x,size=1 y\n", 2, 2, "unexpected key 'size' for mount type 'bind'"},
		{"mount mode", "FROM a\nRUN --mount=target=/x,mode=0700 y\n", 2, 2, `mode not allowed for "bind" type mounts`},
		{"mount from variable", "FROM a\nRUN --mount=from=$x,target=/x y\n", 2, 2, "'from' doesn't support variable expansion, define alias stage instead"},
		{"mount of nothing", "FROM a\nRUN --mount=type=secret y\n", 2, 2, "one of source, target required"},
		{"mount from later", "FROM a\nRUN --mount=from=y,target=/m z\nFROM a AS y\nFROM 0\n", 0, 0, ""},
		{"mount from later, needed", "FROM a AS x\nRUN --mount=from=y,target=/m z\nFROM a AS y\nFROM x\n", 2, 2, `cannot mount from stage "y" to "/m", stage needs to be defined before current command`},
		{"mount from itself", "FROM a AS x\nRUN --mount=from=x,target=/m z\n", 2, 2, "circular dependency detected on stage: x"},
		{"mount from no image", "FROM a AS build\nFROM b\nRUN --mount=from=Buidl,target=/m z\n", 3, 3, "(did you mean build?)"},
		{"device", "FROM a\nRUN --device=x,required y\n", 2, 2, `device "x" is required`},
		{"optional device", "FROM a\nRUN --device=x y\n", 0, 0, ""},
		{"platform variable", "FROM --platform=$BUILDPLATFROM a\n", 1, 1, "(did you mean BUILDPLATFORM?)"},
		{"flag like two", "FROM a\nCOPY --chmwn=x a b\n", 2, 2, "unknown flag: --chmwn (did you mean chown?)"},
		{"security", "FROM a\nRUN --security=none x\n", 2, 2, `security "none" is not valid`},

		// Remote sources.
		{"COPY URL", "FROM a\nCOPY http://example.com/x /\n", 2, 2, "source can't be a URL for COPY"},
		{"COPY git", "FROM a\nCOPY git@example.com:x/y.git /\n", 2, 2, "source can't be a git ref for COPY"},
		{"git query", "FROM a\nADD https://example.com/x.git?foo=bar /\n", 2, 2, `unexpected query "foo"`},
		{"git conflict", "FROM a\nADD https://example.com/x.git?ref=a#b /\n", 2, 2, "ref conflicts"},
		{"git checksum conflict", "FROM a\nADD --checksum=ab https://example.com/x.git?checksum=cd /\n", 2, 2, "checksum mismatch"},
		{"keep-git-dir conflict", "FROM a\nADD --keep-git-dir=false https://example.com/x.git?keep-git-dir /\n", 2, 2, "inconsistent keep-git-dir"},
		{"checksum of a path", "FROM a\nADD --checksum=sha256:00 x /\n", 2, 2, "checksum requires HTTP(S) or Git sources"},
		{"checksum of two", "FROM a\nADD --checksum=sha256:00 https://x/a https://x/b /\n", 2, 2, "checksum can't be specified for multiple sources"},
		{"checksum", "FROM a\nADD --checksum=sha256:00 https://x/a /\n", 2, 2, "invalid checksum digest length"},
		{"file name of a URL", "FROM a\nADD https://example.com/x/.. /\n", 2, 2, `".." is no name for a file`},
		{"symbolic chmod", "FROM a\nCOPY --chmod=u+q a b\n", 2, 2, "--chmod=u+q"},
		{"link by name", "FROM a\nCOPY --link --chown=app a b\n", 2, 2, "user and group names can't be resolved when used with --link"},
		{"link by group name", "FROM a\nADD --link --chown=0:app a b\n", 2, 2, "user and group names can't be resolved when used with --link"},
		{"BuildKit's stage names", "FROM a AS x.\n", 1, 1, "invalid context name x."},
		{"case of a base", "FROM a AS x\nFROM X\n", 2, 2, "(did you mean x?)"},

		// Bases and stages.
		{"FROM words", "FROM a b\n", 1, 1, "FROM requires either one or three arguments"},
		{"stage name", "FROM a AS 1x\n", 1, 1, `invalid name for build stage: "1x"`},
		{"blank base", "ARG B\nFROM $B\n", 2, 2, "base name ($B) should not be blank"},
		{"base name", "FROM foo/Bar\n", 1, 1, "must be lowercase"},
		{"base of an unneeded stage", "FROM UPPER:: AS x\nFROM a\n", 1, 1, "invalid reference format"},
		{"platform", "FROM --platform=a/b/c/d x\n", 1, 1, "platform a/b/c/d"},
		{"blank platform", "FROM --platform=$X x\n", 1, 1, "platform ($X) should not be blank"},
		{"global ARG", "ARG A=\"${B:?no B}\"\nFROM a\n", 1, 1, "no B"},
		{"copy from itself", "FROM a AS x\nRUN y\nCOPY --from=x a b\n", 3, 3, "circular dependency detected on stage: x"},
		{"copy in a circle", "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nCOPY --from=x a b\nFROM a\n", 4, 4, "circular dependency detected on stage: x"},
		{"copy from later", "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nFROM x\n", 2, 2, `cannot copy from stage "y", it needs to be defined before current stage "x"`},
		{"copy from the stage on top", "FROM a AS x\nCOPY --from=y a b\nFROM x AS y\n", 2, 2, "needs to be defined before"},
		{"stage index", "FROM a\nCOPY --from=7 a b\n", 2, 2, "invalid stage index 7"},
		{"variable in from", "ARG X=y\nFROM a\nCOPY --from=$X a b\n", 3, 3, "variables are not expanded here"},
		{"image in from", "FROM a\nCOPY --from=A:: a b\n", 2, 2, "invalid reference format"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := planText(tc.text, dockerfile.Options{})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			checkError(t, err, tc.start, tc.end, tc.want)
		})
	}
}

func checkError(t *testing.T, err error, start, end int, want string) {
	t.Helper()
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if errors.As(e.Err, new(*dockerfile.Error)) {
		t.Errorf("%v holds another *Error", err)
	}
	if e.Start != start || e.End != end {
		t.Errorf("%v: lines %d to %d, want %d to %d", err, e.Start, e.End, start, end)
	}
	if !strings.Contains(e.Err.Error(), want) {
		t.Errorf("got %q, want %q", e.Err, want)
	}
	if !strings.HasPrefix(err.Error(), e.String()+": ") || strings.Count(err.Error(), "Dockerfile:") > 1 {
		t.Errorf("%q names its location not once", err)
	}
	if start > 0 && !strings.Contains(e.Excerpt(), ">>>") {
		t.Errorf("no line is marked:\n%s", e.Excerpt())
	}
}

// TestStepErrors checks mistakes that only the base or a value brings to light.
func TestStepErrors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text, trigger string
		start               int
		want                string
	}{
		{"syntax of a variable", "FROM a\nENV A=${B:-\n", "", 2, "missing '}'"},
		{"required variable", "FROM a\nARG A\nARG B=\"${A:?give A}\"\n", "", 3, "give A"},
		{"chmod", "FROM a\nARG M=9\nCOPY --chmod=$M a b\n", "", 3, "invalid chmod parameter: '9'"},
		{"checksum", "FROM a\nARG U=x/y\nADD --checksum=x $U /\n", "", 3, "checksum requires"},
		{"port", "FROM a\nEXPOSE $BASE-x\n", "", 2, "invalid port"},
		{"signal", "FROM a\nSTOPSIGNAL $BASE$PATH\n", "", 2, "invalid signal"},
		{"volume", "FROM a\nVOLUME $NONE\n", "", 2, "VOLUME specified can not be an empty string"},
		{"below", "FROM a AS x\nEXPOSE $PATH\nFROM x\nRUN y\n", "", 2, "invalid port"},
		{"too large", "FROM a\nENV A=" + strings.Repeat("x", 60000) + "\n" + strings.Repeat("ENV A=$A$A\n", 9), "", 7, "expand to more than"},
		{"too many ports", "FROM a\nEXPOSE 0-65535 0-65535 0-65535 0-65535\n", "", 2, "more than 196608 ports"},
		{"trigger FROM", "# x\nFROM a\n", "FROM x", 2, `ONBUILD trigger "FROM x" of the base: FROM isn't allowed`},
		{"trigger ONBUILD", "FROM a\n", "ONBUILD RUN x", 1, "isn't allowed"},
		{"trigger of two", "FROM a\n", "RUN x\nRUN y", 1, "not a single instruction"},
		{"trigger of nothing", "FROM a\n", "# check=skip=all", 1, "no instructions"},
		{"trigger unknown", "FROM a\n", "RNU x", 1, "did you mean RUN?"},
		{"trigger mount", "FROM a\n", "RUN --mount=type=tmpsf,target=/x y", 1, "did you mean tmpfs?"},
		{"mount at the root", "FROM a\nRUN --mount=target=/ x\n", "", 2, `invalid mount target "/"`},
		{"mount at the working directory", "FROM a\nRUN --mount=target=. x\n", "", 2, `invalid mount target "."`},
		{"source of ssh", "FROM a\nRUN --mount=type=ssh,source=/x x\n", "", 2, "ssh does not support source"},
		{"mount type", "FROM a\nARG T=x\nRUN --mount=type=$T,target=/x x\n", "", 3, `unsupported mount type "x"`},
		{"trigger mount order", "FROM a AS x\nFROM b AS y\n", "RUN --mount=from=y,target=/m z", 2, "cannot mount from stage"},
		{"trigger from itself", "FROM a AS x\n", "COPY --from=x a b", 1, "needs to be defined before"},
		{"trigger lint", "FROM a\nEXPOSE x$NONE\n", "# check=skip=all\nRUN x", 2, "invalid port"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			base := imageWith("PATH=/bin", "BASE=1")
			if tc.trigger != "" {
				base.Config.OnBuild = []string{tc.trigger}
			}
			target := mustPlan(t, tc.text, dockerfile.Options{}).Target()
			_, _, err := target.Steps(base)
			checkError(t, err, tc.start, tc.start, tc.want)
		})
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	const text = "FROM a AS build\nFROM b AS Test\nFROM c\n"
	for target, want := range map[string]int{"": 2, "build": 0, "TEST": 1, "test": 1, "0": 0, "2": 2} {
		p := mustPlan(t, text, dockerfile.Options{Target: target})
		if got := p.Target().Index; got != want || len(p.Stages) != 1 {
			t.Errorf("target %q: stage %d of %d, want %d of 1", target, got, len(p.Stages), want)
		}
	}
	for target, want := range map[string]string{
		"biuld": `Dockerfile: target stage "biuld" could not be found (did you mean build?)`,
		"3":     `Dockerfile: target stage "3" could not be found`,
		"-1":    `Dockerfile: target stage "-1" could not be found`,
	} {
		_, err := planText(text, dockerfile.Options{Target: target})
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		var e *dockerfile.Error
		if errors.As(err, &e) && e.Excerpt() != "" {
			t.Errorf("excerpt of the whole file: %q", e.Excerpt())
		}
	}
}

func TestNoCacheStages(t *testing.T) {
	t.Parallel()
	const text = "FROM a AS build\nFROM b AS Test\nFROM build\nCOPY --from=test / /\n"
	p := mustPlan(t, text, dockerfile.Options{NoCache: []string{"BUILD", "2"}})
	for _, s := range p.Stages {
		if want := s.Index != 1; s.NoCache != want {
			t.Errorf("stage %d: no cache is %t, want %t", s.Index, s.NoCache, want)
		}
	}
	_, err := planText(text, dockerfile.Options{NoCache: []string{"biuld"}})
	if want := `Dockerfile: no-cache-filter: stage "biuld" could not be found (did you mean build?)`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestExcerpt(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"FROM x\r\nENV a=b\r\nRNU x\r\n": `Dockerfile:3
--------------------
   1 |     FROM x
   2 |     ENV a=b
   3 | >>> RNU x
   4 |     
--------------------
`,
		"FROM x\nENV a=b \\\n c\nRUN 1\nRUN 2\nRUN 3": `Dockerfile:2
--------------------
   1 |     FROM x
   2 | >>> ENV a=b \
   3 | >>>  c
   4 |     RUN 1
--------------------
`,
		"\ufeffRNU x": `Dockerfile:1
--------------------
   1 | >>> RNU x
--------------------
`,
	} {
		_, err := planText(text, dockerfile.Options{})
		var e *dockerfile.Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
		if got := e.Excerpt(); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	if got := (dockerfile.Location{File: "x", Start: 3}).Excerpt(); got != "" {
		t.Errorf("excerpt without source: %q", got)
	}
}

func TestParseReadError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	if _, err := dockerfile.Parse("x", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
