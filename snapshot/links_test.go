package snapshot_test

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
	"golang.org/x/sys/unix"
)

// TestHostileLinks has each way of following links follow one that holds a hostile path.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	const start = "zz-start"
	for _, c := range pathwalktest.Cases(pathwalk.MaxLinks - 1) { // and that one
		root := t.TempDir()
		c.Lay(t, root)
		must(t, os.Symlink(c.Path, root+"/"+start))
		c.Entries[start] = "->" + c.Path
		for who, resolve := range resolvers(root, c.Entries) {
			got, err := resolve(start)
			switch {
			case c.Err == nil || errors.Is(c.Err, unix.ELOOP):
				if !errors.Is(err, c.Err) || err == nil && got != c.Want {
					t.Errorf("%s: the %s says %q, %v, want %q, %v", c, who, got, err, c.Want, c.Err)
				}
			case who != "stack" && err == nil: // a stack takes what is missing literally
				t.Errorf("%s: the %s says %q", c, who, got)
			}
		}
	}
}

// resolvers are the ways in which the package follows the clean name of a directory:
// in layers laid over each other, and in a tree in memory that holds the links and
// directories of entries.
func resolvers(root string, entries map[string]string) map[string]func(name string) (string, error) {
	return map[string]func(string) (string, error){
		"stack": func(name string) (string, error) {
			s := layers.New([]string{root}, owners.Disk, layers.DeviceMarks)
			defer s.Close()
			return s.Resolve(name, true)
		},
		"node": func(name string) (string, error) {
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
			at, _, err := n.Resolve(name, false)
			return at, err
		},
	}
}
