package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/committed"
	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/durable"
	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/containers/storage/pkg/regexp"
	"golang.org/x/sys/unix"
)

// A part is what a store has for one ID mapping: the snapshots, and what is being written.
type part struct {
	dir         string        // dir/ids/<fingerprint> of the store, absolute
	maxUnpacked int64         // bytes of a layer, 0 for no bound
	owners      owners.Keeper // of the files in it
	marks       layers.Marks  // of removed files in it
	usage       *usage.Usage
	boots       *durable.Boots
	bin         *trash.Bin
	snapshots   *committed.Snapshots
}

// openPart opens the part of the running process in the store in the directory dir, and
// throws away what killed processes left.
func openPart(dir string, o Options, u *usage.Usage) (*part, error) {
	mapping, err := idmap.Fingerprint()
	if err != nil {
		return nil, err
	}
	if o.RecordOwners {
		mapping += "-recorded"
	}
	marks, err := findMarks(filepath.Join(u.TempDir(), "marks"))
	if err != nil {
		return nil, err
	}
	if marks == layers.FileMarks {
		mapping += "-marks"
	}
	p := &part{
		dir: filepath.Join(dir, "ids", mapping), maxUnpacked: o.MaxUnpacked, owners: o.owners(), marks: marks,
		usage: u, boots: durable.Of(dir),
	}
	p.bin = trash.In(p.path("garbage"))
	p.snapshots = committed.Of(p.path("snapshots"), u, p.boots, p.bin)
	if err := p.makeDirs(); err != nil {
		return nil, err
	}
	for _, d := range []string{filepath.Join(dir, "tmp"), p.active()} {
		if err := locks.Sweep(d, p.bin.Dir()); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{dir, filepath.Join(dir, "ids")} {
		if err := locks.SweepScratch(d, p.bin.Dir()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// findMarks decides what marks are in the layers of a store, by trying in the directory
// probe, which isn't there before nor afterwards.
func findMarks(probe string) (layers.Marks, error) {
	if err := os.Mkdir(probe, 0o700); err != nil {
		return 0, err
	}
	marks, err := layers.FindMarks(probe)
	return marks, errors.Join(err, descent.RemovePath(probe))
}

// emptyDirs are the directories below "empty", which stand in for missing lower
// ones: no layer may be given to an overlay twice, and a view of nothing needs two.
var emptyDirs = [...]string{"a", "b"}

func (p *part) makeDirs() error {
	if err := makeDirs(p.dir, p.path("snapshots"), p.active(), p.bin.Dir(), p.path("locks")); err != nil {
		return err
	}
	if err := neutral(p.active(), 0o700); err != nil {
		return err
	}
	for _, name := range emptyDirs {
		if err := neutral(filepath.Join(p.path("empty"), name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// neutral makes the directory dir with the given mode, and takes from it what the
// directory that the store is in may hand down to files: a group and an ACL.
func neutral(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Lremovexattr(dir, "system.posix_acl_default"); err == nil {
		_ = unix.Lremovexattr(dir, "system.posix_acl_access") // came with the other
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, 0, 0); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	epoch := time.Unix(0, 0) // for the root of an empty snapshot
	return os.Chtimes(dir, epoch, epoch)
}

// path returns the path of name in the part.
func (p *part) path(name string) string { return filepath.Join(p.dir, name) }

// active returns the directory of the claims of what is being written.
func (p *part) active() string { return p.path("active") }

// copies returns where copies of layers are made.
func (p *part) copies() checkout.Place {
	return checkout.Place{Active: p.active(), Bin: p.bin, Owners: p.owners, Marks: p.marks}
}

// atLeast returns layers, top first, with empty ones below them until there are n.
func (p *part) atLeast(n int, layers []string) []string {
	lower := append([]string(nil), layers...)
	for _, name := range emptyDirs {
		if len(lower) < n {
			lower = append(lower, filepath.Join(p.path("empty"), name))
		}
	}
	return lower
}

var idPattern = regexp.Delayed(`^[0-9a-f]{32,128}$`)

// find returns the directories that make up the snapshot id, top first, and marks it as
// used. A snapshot that isn't there, or was lost, is asked for by elsewhere, which returns
// what it lies on or why it can't be found; that has no directory.
func (p *part) find(id string, elsewhere func(id string, err error) (parent string, _ error)) ([]string, error) {
	if idPattern.MatchString(id) {
		if err := p.snapshots.Mark(id); err != nil {
			if _, err := elsewhere(id, err); err != nil {
				return nil, fmt.Errorf("open snapshot %s: %w", id, err)
			}
		}
	}
	var found []string
	seen := map[string]bool{}
	opaque := false
	for first := true; id != "" || first; first = false {
		if !idPattern.MatchString(id) || seen[id] {
			return nil, fmt.Errorf("open snapshot %q: %w", id, fs.ErrNotExist)
		}
		seen[id] = true
		m, err := p.snapshots.Meta(id)
		if err != nil {
			parent, err := elsewhere(id, err)
			if err != nil {
				return nil, fmt.Errorf("open snapshot %s: %w", id, err)
			}
			id = parent
			continue
		}
		if !opaque {
			found = append(found, p.snapshots.Layer(id))
		}
		opaque = opaque || m.Opaque
		id = m.Parent
	}
	return found, nil
}
