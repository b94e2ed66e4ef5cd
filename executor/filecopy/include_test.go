package filecopy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// TestParentsAndExclude checks what --parents keeps and --exclude leaves out.
func TestParentsAndExclude(t *testing.T) {
	t.Parallel()
	files := []string{"a/b/c=c", "a/b/d.md=d", "a/x.md=x", "a/sub/deep/y.go=y", "top=top", "e/", "l -> a/b"}
	for name, tt := range map[string]struct {
		source filecopy.Source
		want   []string
	}{
		"one file":            {filecopy.Source{Path: ".", Parents: "a/b/c"}, []string{"a/", "a/b/", "a/b/c=c"}},
		"a directory":         {filecopy.Source{Path: ".", Parents: "a/b"}, []string{"a/", "a/b/", "a/b/c=c", "a/b/d.md=d"}},
		"an empty directory":  {filecopy.Source{Path: ".", Parents: "e"}, []string{"e/"}},
		"pivot":               {filecopy.Source{Path: "a", Parents: "b/c"}, []string{"b/", "b/c=c"}},
		"wildcard":            {filecopy.Source{Path: ".", Parents: "a/*.md"}, []string{"a/", "a/x.md=x"}},
		"any depth":           {filecopy.Source{Path: ".", Parents: "**/*.md"}, []string{"a/", "a/b/", "a/b/d.md=d", "a/x.md=x"}},
		"depth in the middle": {filecopy.Source{Path: ".", Parents: "a/**/y.go"}, []string{"a/", "a/sub/", "a/sub/deep/", "a/sub/deep/y.go=y"}},
		"nothing":             {filecopy.Source{Path: ".", Parents: "z*"}, nil},
		"a link":              {filecopy.Source{Path: ".", Parents: "l"}, []string{"l -> a/b"}},
		"pivot by wildcard":   {filecopy.Source{Path: "[a]", Parents: "b/c"}, []string{"b/", "b/c=c"}},
		"exclude a directory": {filecopy.Source{Path: "a", Exclude: []string{"b", "sub"}}, []string{"x.md=x"}},
		"exclude files":       {filecopy.Source{Path: "a", Exclude: []string{"**/*.md"}}, []string{"b/", "b/c=c", "sub/", "sub/deep/", "sub/deep/y.go=y"}},
		"exclude and except":  {filecopy.Source{Path: "a", Exclude: []string{"b", "sub", "!b/c"}}, []string{"b/", "b/c=c", "x.md=x"}},
		"both": {
			filecopy.Source{Path: ".", Parents: "a", Exclude: []string{"a/b", "a/sub"}},
			[]string{"a/", "a/x.md=x"},
		},
		"a file is never excluded by its own name": {filecopy.Source{Path: "top", Exclude: []string{"top"}}, []string{"top=top"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := open(t, build(t, files...)).Select(t.Context(), tt.source)
			must(t, err)
			root := t.TempDir()
			must(t, s.CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
			if got := list(t, root); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestParentsReadsOnlyTheWay checks that a directory that no match can be in is
// not looked into.
func TestParentsReadsOnlyTheWay(t *testing.T) {
	t.Parallel()
	tree := open(t, build(t, "a/b/c=c", "huge/x"))
	s, err := tree.Select(t.Context(), filecopy.Source{Path: ".", Parents: "a/b/c", Required: true})
	must(t, err)
	if got := s.Nodes(); got != 4 { // the root, a, b and c
		t.Errorf("%d files were looked at, want 4", got)
	}
}

// TestParentsRequired tables what --parents must find: a name itself, which may
// be a link to nothing, and not what is behind a link or left out.
func TestParentsRequired(t *testing.T) {
	t.Parallel()
	tree := open(t, build(t, "a/b", "a/c/d", "link -> a", "dangling -> nowhere", "f"), "a/b")
	for _, tt := range []struct {
		source filecopy.Source
		err    string
	}{
		{filecopy.Source{Path: ".", Parents: "a/c/d"}, ""},
		{filecopy.Source{Path: "link", Parents: "c/d"}, ""},
		{filecopy.Source{Path: ".", Parents: "dangling"}, ""},
		{filecopy.Source{Path: ".", Parents: "a", Exclude: []string{"a", "!a/c/d"}}, ""},
		{filecopy.Source{Path: ".", Parents: "a/z"}, `"a/z": not found`},
		{filecopy.Source{Path: ".", Parents: "a/b"}, `excluded by .dockerignore (pattern "a/b")`},
		{filecopy.Source{Path: ".", Parents: "link/c/d"}, `"link/c/d": not found: --parents follows no symbolic link, and only "a/c/d" exists`},
		{filecopy.Source{Path: ".", Parents: "a/c/d", Exclude: []string{"a/c"}}, `"a/c/d": not found: --exclude leaves it out`},
		{filecopy.Source{Path: "a", Parents: "."}, `"a": not found: behind /./`},
		{filecopy.Source{Path: "f", Parents: "x"}, `"f/x": not found`},
	} {
		tt.source.Required = true
		s, err := tree.Select(t.Context(), tt.source)
		if tt.err == "" {
			must(t, err)
			if len(s.Paths()) == 0 {
				t.Errorf("%v selects nothing", tt.source)
			}
		} else if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%v: %v, want %q", tt.source, err, tt.err)
		}
	}
}

// TestParentsMetadata checks what the directories are like that are made only
// for what is below them, and what becomes of those that exist.
func TestParentsMetadata(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := build(t, "a/b/c")
	give(t, filepath.Join(dir, "a/b/c"), 3, 0o640)
	give(t, filepath.Join(dir, "a/b"), 2, 0o750)
	give(t, filepath.Join(dir, "a"), 1, 0o1770)
	root := build(t, "there/a/")
	give(t, filepath.Join(root, "there/a"), 9, 0o700)
	s, err := open(t, dir).Select(t.Context(), filecopy.Source{Path: ".", Parents: "a/b/c"})
	must(t, err)
	must(t, s.CopyTo(t.Context(), root, "/there", filecopy.Options{}))
	must(t, s.CopyTo(t.Context(), root, "/new", filecopy.Options{}))
	for path, want := range map[string]string{
		"there/a": "1770 9:9 now", "there/a/b": "0750 2:2 now", "there/a/b/c": "0640 3:3 stamp",
		"new/a": "1770 1:1 now", "new/a/b": "0750 2:2 now",
	} {
		if got := meta(t, filepath.Join(root, path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

func TestSymbolicChmod(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string][3]uint32{ // of a program, a file and a directory
		"u+s":        {0o4754, 0o4640, 0o4750},
		"go=u-w,+X":  {0o755, 0o644, 0o755},
		"a=rX":       {0o555, 0o444, 0o555},
		"+t,g-rwx":   {0o1704, 0o1600, 0o1700},
		"07777":      {0o7777, 0o7777, 0o7777},
		"u=rwX,go=r": {0o744, 0o644, 0o744},
	} {
		root := t.TempDir()
		dir := build(t, "p", "f", "d/x")
		must(t, os.Chmod(filepath.Join(dir, "p"), 0o754))
		must(t, os.Chmod(filepath.Join(dir, "f"), 0o640))
		must(t, os.Chmod(filepath.Join(dir, "d"), 0o750))
		must(t, pick(t, open(t, dir), ".").CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self(), Mode: chmod(t, mode)}))
		for i, name := range []string{"p", "f", "d"} {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(root, name), &st))
			if got := st.Mode & 0o7777; got != want[i] {
				t.Errorf("%s: %s has mode %04o, want %04o", mode, name, got, want[i])
			}
		}
		must(t, os.Chmod(filepath.Join(root, "d"), 0o700)) // for the clean-up
	}
	for _, bad := range []string{"", "8", "10000", "u+q", "x", "u+r;g+w", "-1"} {
		if _, err := filecopy.ParseChmod(bad); err == nil {
			t.Errorf("%q is taken for a mode", bad)
		}
	}
}

// TestMatchesInTurn checks that every match of a wildcard is copied as if by
// itself: to a destination that is no directory the last one remains.
func TestMatchesInTurn(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		source, dest string
		want         []string
	}{
		"files":                          {"[ab]", "/x", []string{"a -> .", "x=b"}},
		"into a directory":               {"[ab]", "/x/", []string{"a -> .", "x/", "x/a=a", "x/b=b"}},
		"over the link to the directory": {"[ab]", "/a", []string{"a=b"}},
		"a directory first":              {"[de]", "/x", []string{"a -> .", "x/", "x/e=e", "x/f=d/f"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := build(t, "a -> .")
			s := pick(t, open(t, build(t, "a", "b", "d/f", "e")), tt.source)
			must(t, s.CopyTo(t.Context(), root, tt.dest, filecopy.Options{Owner: self()}))
			if got := list(t, root); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
