package filecopy_test

import (
	"testing"

	"github.com/bobbuild/bob/executor/filecopy"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
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

func pick(tb testing.TB, tree *filecopy.Tree, sources ...string) *filecopy.Selection {
	tb.Helper()
	s, err := tree.Select(tb.Context(), sources)
	must(tb, err)
	return s
}
