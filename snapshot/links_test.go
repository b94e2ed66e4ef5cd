package snapshot_test

import (
	"errors"
	"os"
	"testing"

	"github.com/bobbuild/bob/snapshot"
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
		for who, resolve := range snapshot.Resolvers(root, c.Entries) {
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
