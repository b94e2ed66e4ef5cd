package tree_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
	"golang.org/x/sys/unix"
)

// TestHostileLinks has a node follow links that hold hostile paths.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	const start = "zz-start"
	for _, c := range pathwalktest.Cases(pathwalk.MaxLinks - 1) { // and that one
		c.Entries[start] = "->" + c.Path
		got, _, err := treeOf(c.Entries).Resolve(start, false)
		switch {
		case c.Err == nil || errors.Is(c.Err, unix.ELOOP):
			if !errors.Is(err, c.Err) || err == nil && got != c.Want {
				t.Errorf("%s: got %q, %v, want %q, %v", c, got, err, c.Want, c.Err)
			}
		case err == nil:
			t.Errorf("%s: got %q", c, got)
		}
	}
}

// treeOf returns a directory with the entries of a [pathwalktest.Case].
func treeOf(entries map[string]string) *tree.Node {
	n := tree.NewDirectory()
	for _, path := range slices.Sorted(maps.Keys(entries)) {
		parent, base := relpath.Split(path)
		kid := &tree.Node{Kind: unix.S_IFREG}
		if target, link := strings.CutPrefix(entries[path], "->"); link {
			kid = &tree.Node{Kind: unix.S_IFLNK, Link: target}
		} else if entries[path] == "/" {
			kid = tree.NewDirectory()
		}
		n.At(parent).Kids[base] = kid
	}
	return n
}
