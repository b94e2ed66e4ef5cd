package dockerfile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
)

// TestPrecedence checks what a variable is in the environment of the last RUN,
// in expansion, in the image and in the history.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text string
		args       string // K=V, separated by spaces
		base       []string
		env        string // of the last RUN, without PATH
		image      string // environment of the image, without PATH
		history    string
	}{
		{"default", "FROM a\nARG V=1\nRUN x\n", "", nil, "V=1", "", "RUN |1 V=1 /bin/sh -c x # buildkit"},
		{"build argument", "FROM a\nARG V=1\nRUN x\n", "V=2", nil, "V=2", "", "RUN |1 V=2 /bin/sh -c x # buildkit"},
		{"no value", "FROM a\nARG V\nRUN x\n", "", nil, "", "", "RUN |1 V= /bin/sh -c x # buildkit"},
		{"empty build argument", "FROM a\nARG V=1\nRUN x\n", "V=", nil, "V=", "", "RUN |1 V= /bin/sh -c x # buildkit"},
		{"undeclared", "FROM a\nRUN x\n", "V=2", nil, "", "", "RUN /bin/sh -c x # buildkit"},
		{"global undeclared in stage", "ARG V=1\nFROM a\nRUN x\n", "", nil, "", "", "RUN /bin/sh -c x # buildkit"},
		{"global declared again", "ARG V=1\nFROM a\nARG V\nRUN x\n", "", nil, "V=1", "", "RUN |1 V=1 /bin/sh -c x # buildkit"},
		{"global and default", "ARG V=1\nFROM a\nARG V=2\nRUN x\n", "", nil, "V=2", "", "RUN |1 V=2 /bin/sh -c x # buildkit"},
		{"global given", "ARG V=1\nFROM a\nARG V=2\nRUN x\n", "V=3", nil, "V=3", "", "RUN |1 V=3 /bin/sh -c x # buildkit"},
		{"global of global", "ARG A=1\nARG B=\"$A-2\"\nFROM a\nARG B\nRUN x\n", "A=9", nil, "B=9-2", "", "RUN |1 B=9-2 /bin/sh -c x # buildkit"},
		{"ENV after ARG", "FROM a\nARG V=1\nENV V=2\nRUN x\n", "V=3", nil, "V=2", "V=2", "RUN |1 V=2 /bin/sh -c x # buildkit"},
		{"ENV from ARG", "FROM a\nARG V=1\nENV V=${V:-x}\nRUN x\n", "V=3", nil, "V=3", "V=3", "RUN |1 V=3 /bin/sh -c x # buildkit"},
		{"ARG after ENV", "FROM a\nENV V=2\nARG V=1\nRUN x\n", "", nil, "V=1", "V=2", "RUN |1 V=1 /bin/sh -c x # buildkit"},
		{"ARG without value after ENV", "FROM a\nENV V=2\nARG V\nRUN x\n", "", nil, "V=2", "V=2", "RUN |1 V=2 /bin/sh -c x # buildkit"},
		{"ENV of the base", "FROM a\nARG V\nRUN x\n", "", []string{"V=b"}, "V=b", "V=b", "RUN |1 V=b /bin/sh -c x # buildkit"},
		{"ENV of the base given", "FROM a\nARG V\nRUN x\n", "V=1", []string{"V=b"}, "V=1", "V=b", "RUN |1 V=1 /bin/sh -c x # buildkit"},
		{"inherited ARG", "FROM a AS b\nARG V=1\nFROM b\nRUN x\n", "", nil, "V=1", "", "RUN |1 V=1 /bin/sh -c x # buildkit"},
		{"inherited ARG and ENV", "FROM a AS b\nENV V=2\nARG V=1\nFROM b\nRUN x\n", "", nil, "V=2", "V=2", "RUN |1 V=2 /bin/sh -c x # buildkit"},
		{"ARG of a sibling", "FROM a AS b\nARG V=1\nFROM a\nCOPY --from=b x x\nRUN x\n", "", nil, "", "", "RUN /bin/sh -c x # buildkit"},
		{"order", "FROM a\nARG Z=1 Y=2\nENV X=3\nARG Z=4\nRUN x\n", "", nil, "Y=2 X=3 Z=4", "X=3", "RUN |2 Z=4 Y=2 /bin/sh -c x # buildkit"},
		{"same ENV line", "FROM a\nENV A=1\nENV A=2 B=$A\nRUN x\n", "", nil, "A=2 B=1", "A=2 B=1", "RUN /bin/sh -c x # buildkit"},
		{"same ARG line", "FROM a\nARG A=1 B=$A\nRUN x\n", "", nil, "A=1 B=1", "", "RUN |2 A=1 B=1 /bin/sh -c x # buildkit"},
		{"default of a given one is not read", "FROM a\nARG A=${X:?}\nRUN x\n", "A=1", nil, "A=1", "", "RUN |1 A=1 /bin/sh -c x # buildkit"},
		{"platform", "FROM a\nARG TARGETARCH\nARG TARGETOS=x\nRUN x\n", "", nil, "TARGETARCH=amd64 TARGETOS=x", "", "RUN |2 TARGETARCH=amd64 TARGETOS=x /bin/sh -c x # buildkit"},
		{"platform given", "FROM a\nARG TARGETARCH\nRUN x\n", "TARGETARCH=z80", nil, "TARGETARCH=z80", "", "RUN |1 TARGETARCH=z80 /bin/sh -c x # buildkit"},
		{"proxy", "FROM a\nRUN x\n", "HTTP_PROXY=p", nil, "HTTP_PROXY=p http_proxy=p", "", "RUN /bin/sh -c x # buildkit"},
		{"proxy declared", "FROM a\nARG http_proxy\nRUN x\n", "http_proxy=p", nil, "http_proxy=p HTTP_PROXY=p", "", "RUN |1 http_proxy=p /bin/sh -c x # buildkit"},
		{"quotes", "FROM a\nENV A='$X' B=\"$X\" C=\\$X\nRUN x\n", "", []string{"X=1"}, "X=1 A=$X B=1 C=$X", "X=1 A=$X B=1 C=$X", "RUN /bin/sh -c x # buildkit"},
		{"modifiers", "FROM a\nENV A=${X:+y} B=${N:-d} C=${X#a} D=${X/b/z}\nRUN x\n", "", []string{"X=ab"}, "X=ab A=y B=d C=b D=az", "X=ab A=y B=d C=b D=az", "RUN /bin/sh -c x # buildkit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := dockerfile.Options{BuildArgs: map[string]string{}}
			for kv := range strings.FieldsSeq(tc.args) {
				key, value, _ := strings.Cut(kv, "=")
				o.BuildArgs[key] = value
			}
			base := imageWith(append([]string{"PATH=/p"}, tc.base...)...)
			run, step := lastRun(t, mustSteps(t, tc.text, o, base))
			if got := strings.Join(withoutPath(run.Env), " "); got != tc.env {
				t.Errorf("environment %q, want %q", got, tc.env)
			}
			if got := strings.Join(withoutPath(mustImage(t, tc.text, o, base).Config.Env), " "); got != tc.image {
				t.Errorf("image has %q, want %q", got, tc.image)
			}
			if step.History.CreatedBy != tc.history {
				t.Errorf("history %q, want %q", step.History.CreatedBy, tc.history)
			}
		})
	}
}

func withoutPath(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return kv == "PATH=/p" })
}

// TestBase checks global arguments in FROM.
func TestBase(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ from, args, reference, platform string }{
		{"FROM busybox", "", "docker.io/library/busybox:latest", "linux/amd64"},
		{"FROM localhost:5000/a/b:1", "", "localhost:5000/a/b:1", "linux/amd64"},
		{"ARG T=1\nFROM a:$T", "", "docker.io/library/a:1", "linux/amd64"},
		{"ARG T=1\nFROM a:$T", "T=2", "docker.io/library/a:2", "linux/amd64"},
		{"ARG T=\nFROM a${T:+:$T}", "", "docker.io/library/a:latest", "linux/amd64"},
		{"ARG T\nFROM a:${T:-3}", "", "docker.io/library/a:3", "linux/amd64"},
		{"FROM --platform=linux/arm64 a", "", "docker.io/library/a:latest", "linux/arm64"},
		{"FROM --platform=$TARGETPLATFORM a", "TARGETPLATFORM=linux/s390x", "docker.io/library/a:latest", "linux/s390x"},
		{"FROM --platform=linux/arm64 scratch", "", "", "linux/amd64"},
		{"FROM --platform=linux/arm64 a AS x\nFROM --platform=linux/s390x x", "", "", "linux/arm64"},
		{"FROM 0", "", "docker.io/library/0:latest", "linux/amd64"},
		{"FROM a AS b\nFROM b:1", "", "docker.io/library/b:1", "linux/amd64"},
	} {
		o := dockerfile.Options{}
		if key, value, ok := strings.Cut(tc.args, "="); ok {
			o.BuildArgs = map[string]string{key: value}
		}
		s := mustPlan(t, tc.from+"\n", o).Target()
		if s.Base.Reference != tc.reference {
			t.Errorf("%q: base %q, want %q", tc.from, s.Base.Reference, tc.reference)
		}
		if got := s.Platform.OS + "/" + s.Platform.Architecture; got != tc.platform {
			t.Errorf("%q: platform %s, want %s", tc.from, got, tc.platform)
		}
	}
}
