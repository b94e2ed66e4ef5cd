package harness_test

import (
	"archive/tar"
	"slices"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

func dir(name string) harness.Entry {
	return harness.Entry{Name: name, Type: tar.TypeDir, Mode: 0o755}
}

func reg(name string) harness.Entry {
	return harness.Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Sum: "0123456789abcdef"}
}

func TestFlatten(t *testing.T) {
	t.Parallel()
	base := []harness.Entry{dir("d"), reg("d/a"), reg("d/b"), reg("f"), reg("g"), {Name: "h", Type: tar.TypeLink, Link: "g"}}
	for name, test := range map[string]struct {
		top  []harness.Entry
		want []string
	}{
		"nothing":        {nil, nil},
		"whiteout":       {[]harness.Entry{dir("d"), reg("d/.wh.a")}, []string{"D d/a"}},
		"whiteout dir":   {[]harness.Entry{reg(".wh.d")}, []string{"D d", "D d/a", "D d/b"}},
		"opaque":         {[]harness.Entry{dir("d"), reg("d/c"), reg("d/.wh..wh..opq")}, []string{"D d/a", "D d/b", "A -0644 0:0 d/c 0 0123456789ab"}},
		"dir to file":    {[]harness.Entry{reg("d")}, []string{"C -0644 0:0 d 0 0123456789ab", "D d/a", "D d/b"}},
		"dir to dir":     {[]harness.Entry{{Name: "d/", Type: tar.TypeDir, Mode: 0o700}}, []string{"C d0700 0:0 d"}},
		"gone and again": {[]harness.Entry{reg(".wh.f"), reg("f")}, nil},
		"link broken":    {[]harness.Entry{reg("h")}, []string{"C -0644 0:0 h 0 0123456789ab"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before, err := harness.Flatten([]harness.Layer{{Entries: base}})
			if err != nil {
				t.Fatal(err)
			}
			after, err := harness.Flatten([]harness.Layer{{Entries: base}, {Entries: test.top}})
			if err != nil {
				t.Fatal(err)
			}
			if got := after.Changes(before); !slices.Equal(got, test.want) {
				t.Errorf("changes are\n%q, want\n%q", got, test.want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for name, entries := range map[string][]harness.Entry{
		"absolute":      {reg("/f")},
		"dot":           {reg("./f")},
		"twice":         {reg("f"), reg("f")},
		"orphan":        {reg("d/f")},
		"absolute link": {reg("a"), {Name: "b", Type: tar.TypeLink, Link: "/a"}},
		"forward link":  {{Name: "a", Type: tar.TypeLink, Link: "b"}, reg("b")},
		"whiteout dir":  {dir(".wh.d")},
		"own attribute": {{Name: "f", Type: tar.TypeReg, Sum: "0123456789ab", Xattrs: map[string]string{"user.overlay.opaque": "y"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (harness.Layer{Entries: entries}).Problems(); len(got) != 1 {
				t.Errorf("problems are %q, want one", got)
			}
		})
	}
	good := harness.Layer{Entries: []harness.Entry{dir("a/"), reg("a/.wh.x"), reg("a/c"), {Name: "a/d", Type: tar.TypeLink, Link: "a/c"}, reg("a-b")}}
	if got := good.Problems(); len(got) != 0 {
		t.Errorf("problems of a good layer are %q", got)
	}
}
