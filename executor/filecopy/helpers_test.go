package filecopy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func itoa(i int) string { return strconv.Itoa(i) }

// self owns what an unprivileged user can make.
func self() *filecopy.Owner {
	return &filecopy.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("changes owners, which needs root")
	}
}

// open opens a tree that is closed with the test.
func open(tb testing.TB, dir string, ignore ...string) *filecopy.Tree {
	tb.Helper()
	tree, err := filecopy.OpenDir(dir, ignore)
	must(tb, err)
	tb.Cleanup(func() { must(tb, tree.Close()) })
	return tree
}

func chmod(tb testing.TB, mode string) *filecopy.Chmod {
	tb.Helper()
	c, err := filecopy.ParseChmod(mode)
	must(tb, err)
	return c
}

// pick selects what the path name stands for.
func pick(tb testing.TB, tree *filecopy.Tree, name string) *filecopy.Selection {
	tb.Helper()
	s, err := tree.Select(tb.Context(), filecopy.Source{Path: name})
	must(tb, err)
	return s
}

// build makes a directory with the files described: "path" (whose content is
// its path), "path=content", "path/" (a directory), "path -> target" and
// "path |" (a fifo).
func build(tb testing.TB, files ...string) string {
	tb.Helper()
	dir := tb.TempDir()
	for _, f := range files {
		add(tb, dir, f)
	}
	return dir
}

func add(tb testing.TB, dir, file string) {
	tb.Helper()
	parent := func(name string) string {
		p := filepath.Join(dir, name)
		must(tb, os.MkdirAll(filepath.Dir(p), 0o755))
		return p
	}
	if name, target, ok := strings.Cut(file, " -> "); ok {
		must(tb, os.Symlink(target, parent(name)))
	} else if name, ok := strings.CutSuffix(file, " |"); ok {
		must(tb, unix.Mkfifo(parent(name), 0o644))
	} else if strings.HasSuffix(file, "/") {
		must(tb, os.MkdirAll(parent(file), 0o755))
	} else if name, content, ok := strings.Cut(file, "="); ok {
		must(tb, os.WriteFile(parent(name), []byte(content), 0o644))
	} else {
		must(tb, os.WriteFile(parent(file), []byte(file), 0o644))
	}
}

// list describes what is in dir in the words of build, sorted.
func list(tb testing.TB, dir string) []string {
	tb.Helper()
	var out []string
	must(tb, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		must(tb, err)
		switch {
		case d.IsDir():
			rel += "/"
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			must(tb, err)
			rel += " -> " + target
		case d.Type() == fs.ModeNamedPipe:
			rel += " |"
		case d.Type().IsRegular():
			content, err := os.ReadFile(p)
			must(tb, err)
			rel += "=" + string(content)
		default:
			rel += " ?" + d.Type().String()
		}
		out = append(out, rel)
		return nil
	}))
	return out
}
