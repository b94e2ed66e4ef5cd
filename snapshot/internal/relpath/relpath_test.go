package relpath_test

import (
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/relpath"
)

func TestClean(t *testing.T) {
	t.Parallel()
	const refused = "\x00"
	for name, want := range map[string]string{
		"": "", "/": "", ".": "", "./": "", "//a//b/": "a/b", "a/../b": "b", "./a/./b": "a/b", "..a": "..a", "a/..": "",
		"/..": refused, "..": refused, "../a": refused, "a/../../b": refused, "/../a": refused,
		strings.Repeat("a", relpath.MaxLength): strings.Repeat("a", relpath.MaxLength), strings.Repeat("a", relpath.MaxLength+1): refused,
	} {
		got, err := relpath.Clean(name)
		if err != nil {
			got = refused
		}
		if got != want {
			t.Errorf("%.40q: got %.40q, %v, want %.40q", name, got, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{"": {"", ""}, "a": {"", "a"}, "a/b": {"a", "b"}, "a/b/c": {"a/b", "c"}} {
		parent, base := relpath.Split(name)
		if got := [2]string{parent, base}; got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
		if got := relpath.Join(parent, base); got != name {
			t.Errorf("%q: joined again it is %q", name, got)
		}
	}
}

func TestBrief(t *testing.T) {
	t.Parallel()
	if got := relpath.Brief("a/b"); got != "a/b" {
		t.Errorf("got %q", got)
	}
	long := "begin" + strings.Repeat("/d", 2000) + "/end"
	if got := relpath.Brief(long); len(got) > 300 || !strings.HasPrefix(got, "begin/") || !strings.HasSuffix(got, "/end") {
		t.Errorf("got %q", got)
	}
}
