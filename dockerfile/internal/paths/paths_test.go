package paths_test

import (
	"testing"

	"github.com/bobbuild/bob/dockerfile/internal/paths"
)

// TestPlace holds for one directory what becomes of paths. The test of dockerfile holds
// more paths of Windows against those of BuildKit.
func TestPlace(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ os, dir, name, source, destination string }{
		{"linux", "/w", "a", "a", "/w/a"},
		{"linux", "w", "./a/", "./a/", "/w/a/"},
		{"linux", "", ".", ".", "/"},
		{"linux", "/w", "", "", "/w/"},
		{"linux", "/w/..", "../../a/.", "../../a/.", "/a/"},
		{"linux", "/w", `C:\a`, `C:\a`, `/w/C:\a`},
		{"windows", `C:\w`, `a\b`, "/a/b", "/w/a/b"},
		{"windows", `\w`, `C:\a\`, "/a", "/a/"},
		{"windows", "", ".", "/", "/"},
	} {
		p := paths.In(test.dir, test.os)
		if got, err := p.Source(test.name); err != nil || got != test.source {
			t.Errorf("%+v: source %q, %v", test, got, err)
		}
		if got, err := p.Destination(test.name); err != nil || got != test.destination {
			t.Errorf("%+v: destination %q, %v", test, got, err)
		}
	}
	if p := paths.In(`C:\`, "windows"); p.Dir != "/" || !p.IsAbs(`C:\a`) || !p.IsAbs("/a") || p.IsAbs("a") {
		t.Errorf("%+v: absolute paths are taken for relative ones, or the reverse", p)
	}
	if _, err := paths.In("", "windows").Source("d:/f"); err == nil {
		t.Error("another drive is no error")
	}
}

func TestRelative(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"": ".", "/": ".", "..": ".", "/a/../../b/": "b", "a/./b": "a/b"} {
		if got := paths.Relative(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{"a": true, "...": true, "": false, ".": false, "..": false, "a/b": false, "/": false} {
		if err := paths.CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
