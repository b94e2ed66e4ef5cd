package layers_test

import (
	"errors"
	"os"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
	"golang.org/x/sys/unix"
)

// TestHostileLinks has a stack follow links that hold hostile paths.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	const start = "zz-start"
	for _, c := range pathwalktest.Cases(pathwalk.MaxLinks - 1) { // and that one
		root := t.TempDir()
		c.Lay(t, root)
		if err := os.Symlink(c.Path, root+"/"+start); err != nil {
			t.Fatal(err)
		}
		s := layers.New([]string{root}, owners.Disk, layers.DeviceMarks)
		got, err := s.Resolve(start, true)
		s.Close()
		if c.Err != nil && !errors.Is(c.Err, unix.ELOOP) {
			continue // a stack takes missing files literally
		}
		if !errors.Is(err, c.Err) || err == nil && got != c.Want {
			t.Errorf("%s: got %q, %v, want %q, %v", c, got, err, c.Want, c.Err)
		}
	}
}
