package layertar_test

import (
	"errors"
	"os"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
	"golang.org/x/sys/unix"
)

// TestHostileLinks has a tree follow a link that holds a hostile path.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	const start = "zz-start"
	for _, c := range pathwalktest.Cases(pathwalk.MaxLinks - 1) { // and that one
		root := t.TempDir()
		c.Lay(t, root)
		if err := os.Symlink(c.Path, root+"/"+start); err != nil {
			t.Fatal(err)
		}
		got, err := layertar.Resolve(root, start)
		switch {
		case c.Err == nil || errors.Is(c.Err, unix.ELOOP):
			if !errors.Is(err, c.Err) || err == nil && got != c.Want {
				t.Errorf("%s: %q, %v, want %q, %v", c, got, err, c.Want, c.Err)
			}
		case err == nil:
			t.Errorf("%s: %q", c, got)
		}
	}
}
