package filecopy_test

import (
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"

	"github.com/bobbuild/bob/executor/filecopy"
)

func TestReadIgnore(t *testing.T) {
	t.Parallel()
	got, err := filecopy.ReadIgnore(strings.NewReader("\ufeff# comment\n\n /abs/x \n! keep/../kept\n*.log\n#no\n\\#yes\n"))
	must(t, err)
	if want := []string{"abs/x", "!kept", "*.log", `\#yes`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestIgnore tables what patterns leave of a tree.
func TestIgnore(t *testing.T) {
	t.Parallel()
	files := []string{
		"main.go", "main.log", "README.md", "empty/",
		"a/x.go", "a/b/x.go", "a/b/x.log", "a/b/c/f", "a/b/c/g", "z/c/f",
		"node_modules/m/index.js", "node_modules/keep/index.js", ".git/config", ".dockerignore",
	}
	all := []string{
		".dockerignore", ".git/", ".git/config", "README.md", "a/", "a/b/", "a/b/c/", "a/b/c/f", "a/b/c/g", "a/b/x.go",
		"a/b/x.log", "a/x.go", "empty/", "main.go", "main.log", "node_modules/", "node_modules/keep/",
		"node_modules/keep/index.js", "node_modules/m/", "node_modules/m/index.js", "z/", "z/c/", "z/c/f",
	}
	without := func(names ...string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(p string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return p == n || strings.HasSuffix(n, "/") && strings.HasPrefix(p, n) })
		})
	}
	tests := []struct {
		name     string
		patterns string
		want     []string
	}{
		{"none", "", all},
		{"name at the root only", "x.go\nmain.log", without("main.log")},
		{"directory", "node_modules", without("node_modules/")},
		{"directory with slash", "/node_modules/", without("node_modules/")},
		{"star doesn't cross slashes", "*.log", without("main.log")},
		{"two stars", "**/*.log", without("main.log", "a/b/x.log")},
		{"two stars in the middle", "a/**/f", without("a/b/c/f")},
		{"two stars at the end", "a/**", without("a/b/", "a/x.go")},
		{"exception", "*.log\n!main.log", all},
		{"exception before counts not", "!main.log\n*.log", without("main.log")},
		{"last word", "*.log\n!main.log\nmain.*", without("main.log", "main.go")},
		{"all but one", "*\n!main.go", []string{"main.go"}},
		{"all but a directory", "*\n!a/b", []string{"a/", "a/b/", "a/b/c/", "a/b/c/f", "a/b/c/g", "a/b/x.go", "a/b/x.log"}},
		{"all but a deep file", "*\n!a/b/c/f", []string{"a/", "a/b/", "a/b/c/", "a/b/c/f"}},
		{"all but by extension", "**\n!**/*.go", []string{"a/", "a/b/", "a/b/x.go", "a/x.go", "main.go"}},
		{"star but by extension", "*\n!**/*.go", []string{"a/", "a/b/", "a/b/x.go", "a/x.go", "main.go"}},
		{"directories anywhere but one file", "**/c\n!a/b/c/f", without("a/b/c/g", "z/c/")},
		{"contents but one", "node_modules/*\n!node_modules/keep", without("node_modules/m/")},
		{"directory but one", "node_modules\n!node_modules/keep", without("node_modules/m/")},
		{"exception of nothing", "node_modules\n!node_modules/none", without("node_modules/")},
		{"directory but two levels below", "a/**\n!a/*/**", without("a/x.go")},
		{"exclude again", "a\n!a/b\na/b/c", without("a/x.go", "a/b/c/")},
		{"exception above", "a/b\n!a", without("a/b/")},
		{"class knows no exclamation mark", "[mM]ain.[!g]*\n", without("main.go")},
		{"negated class", "main.[^g]*", without("main.log")},
		{"question mark", "?.go\nm?in.go", without("main.go")},
		{"everything", "*", nil},
		{"ignore file", ".dockerignore\n.git", without(".dockerignore", ".git/")},
	}
	src := build(t, files...)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			patterns, err := filecopy.ReadIgnore(strings.NewReader(tt.patterns))
			must(t, err)
			root := t.TempDir()
			s := pick(t, open(t, src, patterns...), ".")
			must(t, s.CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
			got := list(t, root)
			for i, n := range got {
				got[i], _, _ = strings.Cut(n, "=")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestIgnoreWildcard checks that wildcards see what is left of a tree.
func TestIgnoreWildcard(t *testing.T) {
	t.Parallel()
	tree := open(t, build(t, "da/x", "da/keep/k", "db/y", "dc/z", "d.key"), "d*", "!da/keep", "!dc")
	for source, want := range map[string][]string{
		"d*":     {"keep/", "keep/k", "z"},
		"*/*":    {"k"},
		"da/*":   {"k"},
		"*/*/k":  nil,
		"d*/kee": nil,
		"*.key":  nil,
	} {
		if got := pick(t, tree, source).Paths(); !slices.Equal(got, want) {
			t.Errorf("%q stands for %q, want %q", source, got, want)
		}
	}
}

func TestBadIgnorePattern(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"[", "a[b", "!", `\`, "[]a]"} {
		if tree, err := filecopy.OpenDir(t.TempDir(), []string{"ok", p}); err == nil {
			must(t, tree.Close())
			t.Errorf("pattern %q is accepted", p)
		}
	}
}

// FuzzIgnore compares what is left of a tree, walked with pruning, with what
// moby/patternmatcher says of each path of it.
func FuzzIgnore(f *testing.F) {
	for _, seed := range []string{
		"", "*", "**", "a", "a/b\n!a", "*\n!a/b/c", "**/c\n!a/b/c", "**\n!**/*.go", "a/*\n!a/b\na/b/c.go", "!a", "a?\n!ab",
		"[a-b]\n![^a]/c", "a/**\n!a/b/**\n**/c.go", "a\n!a/*/c", "**/b/**\n!b", "./a/../b", "a/\n!/a/b/", "#a\n\\#a", "a/b\n!**", "a/**\n!a/*/**",
	} {
		f.Add(seed)
	}
	names := []string{"a", "b", "ab", "c", "c.go"}
	var paths []string // in the order of a walk
	for _, x := range names {
		paths = append(paths, x+"/")
		for _, y := range names {
			paths = append(paths, x+"/"+y+"/")
			for _, z := range names {
				paths = append(paths, x+"/"+y+"/"+z)
			}
		}
	}
	src := build(f, paths...)
	f.Fuzz(func(t *testing.T, text string) {
		patterns, err := filecopy.ReadIgnore(strings.NewReader(text))
		if err != nil {
			return
		}
		tree, err := filecopy.OpenDir(src, patterns)
		if err != nil {
			return
		}
		got := pick(t, tree, ".").Paths()
		must(t, tree.Close())
		want := oracle(t, patterns, paths)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("patterns %q:\ngot  %q\nwant %q", patterns, got, want)
		}
	})
}

// oracle asks about every path, whatever became of its parents, and adds the
// directories that what is left is in.
func oracle(t *testing.T, patterns, paths []string) []string {
	t.Helper()
	m, err := patternmatcher.New(patterns)
	must(t, err)
	infos := make(map[string]patternmatcher.MatchInfo)
	left := make(map[string]bool)
	for _, p := range paths {
		clean := path.Clean(p)
		excluded, info, err := m.MatchesUsingParentResults(clean, infos[path.Dir(clean)])
		must(t, err)
		infos[clean] = info
		if excluded {
			continue
		}
		left[p] = true
		for d := path.Dir(clean); d != "."; d = path.Dir(d) {
			left[d+"/"] = true
		}
	}
	out := make([]string, 0, len(left))
	for p := range left {
		out = append(out, p)
	}
	return out
}

// TestLeaveOut takes a directory out of a tree, whatever asks for it.
func TestLeaveOut(t *testing.T) {
	t.Parallel()
	dir := build(t, "f", ".cache/bob/blob", ".cache/other/x", "link -> .cache/bob")
	var told []string
	tree := open(t, dir, "*", "!**/b*", "!f", "!.cache", "!link")
	tree.LeaveOut(filepath.Join(dir, "link"), func(rel string) { told = append(told, rel) })
	root := t.TempDir()
	must(t, pick(t, tree, ".").CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	if got, want := list(t, root), []string{".cache/", ".cache/other/", ".cache/other/x=.cache/other/x", "f=f", "link -> .cache/bob"}; !slices.Equal(got, want) {
		t.Errorf("copied %q, want %q", got, want)
	}
	for _, source := range []string{".cache/bob", "link", ".cache/bob/blob"} {
		_, err := tree.Select(t.Context(), filecopy.Source{Path: source})
		if _, ok := errors.AsType[*filecopy.NotFoundError](err); !ok {
			t.Errorf("%s: %v", source, err)
		}
	}
	if n := pick(t, tree, ".cache/b*").Sources(); n != 0 {
		t.Errorf("%d sources match", n)
	}
	if !slices.Equal(told, []string{".cache/bob"}) {
		t.Errorf("told %q", told)
	}
	other := open(t, dir)
	other.LeaveOut(filepath.Join(dir, "missing"), nil)
	pick(t, other, ".cache/bob")
}
