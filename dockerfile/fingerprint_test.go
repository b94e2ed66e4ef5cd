package dockerfile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestFingerprint changes everything that decides about a build one by one, and
// everything that doesn't.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	const text = "FROM a\nRUN <<E\nx\nE\n"
	amd64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	base := dockerfile.Options{
		Target: "t", TargetPlatform: amd64, BuildPlatform: amd64,
		BuildArgs: map[string]string{"A": "1"}, Labels: map[string]string{"l": "1"},
	}
	fingerprint := func(name, text string, change func(*dockerfile.Options)) digest.Digest {
		o := base
		if change != nil {
			change(&o)
		}
		f, err := dockerfile.Parse(name, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return f.Fingerprint(o)
	}
	want := fingerprint("Dockerfile", text, nil)
	then := time.Unix(1, 0)
	for what, got := range map[string]digest.Digest{
		"name": fingerprint("Other", text, nil),
		"proxy": fingerprint("Dockerfile", text, func(o *dockerfile.Options) {
			o.BuildArgs = map[string]string{"A": "1", "HTTP_PROXY": "p", "no_proxy": "p"}
		}),
		"ignore": fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.Ignore = []string{"x"} }),
	} {
		if got != want {
			t.Errorf("%s: the fingerprint changed", what)
		}
	}
	seen := map[digest.Digest]string{want: "the original"}
	for what, got := range map[string]digest.Digest{
		"text":           fingerprint("Dockerfile", strings.Replace(text, "x", "y", 1), nil),
		"line ends":      fingerprint("Dockerfile", strings.Replace(text, "x\n", "x\r\n", 1), nil),
		"comment":        fingerprint("Dockerfile", "# c\n"+text, nil),
		"target":         fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.Target = "" }),
		"platform":       fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.TargetPlatform = arm }),
		"build platform": fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.BuildPlatform = arm }),
		"platform given": fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.PlatformGiven = true }),
		"epoch":          fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.SourceEpoch = &then }),
		"argument":       fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.BuildArgs = map[string]string{"A": "2"} }),
		"bytes":          fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.BuildArgs = map[string]string{"A": "\xff"} }),
		"other bytes":    fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.BuildArgs = map[string]string{"A": "\xfe"} }),
		"no argument":    fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.BuildArgs = nil }),
		"label":          fingerprint("Dockerfile", text, func(o *dockerfile.Options) { o.Labels = map[string]string{"l": "2"} }),
		"context": fingerprint("Dockerfile", text, func(o *dockerfile.Options) {
			o.Contexts = map[string]dockerfile.Context{"a": {Image: "b"}}
		}),
	} {
		if same, ok := seen[got]; ok {
			t.Errorf("%s: the fingerprint is that of %s", what, same)
		}
		seen[got] = what
	}
}
