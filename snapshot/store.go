package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/locks"

	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A Store is a directory of blobs, records and snapshots. Its methods may be
// called concurrently, and other processes may have the same directory open.
type Store struct {
	dir   string // absolute
	ids   string // dir/ids/<fingerprint>
	opts  Options
	boot  string // that this process runs in
	tmp   *locks.Claim
	waste sync.WaitGroup // removals in the background
	metas sync.Map       // of snapshots, by ID
	// Of a store that indexes:
	offers sync.Map // Layers that may be unpacked, by the snapshot's ID
	trees  struct { // of snapshots, by ID
		sync.Mutex

		byID map[string]*node
	}

	marks layers.Marks // of overlay format here

	opened time.Time // as the lock of tmp has it
	synced sync.Map  // up to which moment other boots are on the disk, by name
	whole  sync.Map  // digests of blobs that were read or written in this process

	flats flats

	mu        sync.Mutex
	mounts    map[*mounted]struct{} // what Close has to end
	checkouts []*checkout           // the least recently used first
	closed    bool
}

// Open opens the store in dir, which it makes if it isn't there, and begins to
// remove what killed processes left. The caller closes the store.
func Open(dir string, o Options) (*Store, error) {
	s, err := open(dir, o)
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open store %s: %w: %s", dir, err, otherPlace)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string, o Options) (*Store, error) {
	switch o.Snapshotter {
	case "", Overlay, FuseOverlay, Copy, Index:
	default:
		return nil, fmt.Errorf("there is no snapshotter %q: use %s, %s, %s or %s", o.Snapshotter, Overlay, FuseOverlay, Copy, Index)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	mapping, err := idmap.Fingerprint()
	if err != nil {
		return nil, err
	}
	if o.RecordOwners {
		mapping += "-recorded"
	}
	s := &Store{dir: abs, opts: o, ids: filepath.Join(abs, "ids", mapping), boot: thisBoot(), mounts: map[*mounted]struct{}{}}
	if err := makeDirs(filepath.Dir(s.blobDir()), s.blobDir(), s.path("records"), s.path("tmp"), s.path("ids")); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.tmp.Drop())
	}
	s.collect()
	return s, nil
}

// begin makes the claim that says that this process uses the store.
func (s *Store) begin() (err error) {
	if s.tmp, err = locks.NewClaim(s.path("tmp")); err != nil {
		return err
	}
	s.opened, err = s.tmp.Made()
	return err
}

// prepare makes the part of this ID mapping, and has what killed processes left
// collected.
func (s *Store) prepare() error {
	if err := s.chooseMarks(); err != nil {
		return err
	}
	if err := makeDirs(s.ids, s.own("snapshots"), s.own("active"), s.own("garbage"), s.own("locks")); err != nil {
		return err
	}
	if err := s.neutral(s.own("active"), 0o700); err != nil {
		return err
	}
	for _, name := range emptyDirs {
		if err := s.neutral(filepath.Join(s.own("empty"), name), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []string{s.path("tmp"), s.own("active")} {
		if err := locks.Sweep(d, s.own("garbage")); err != nil {
			return err
		}
	}
	for _, d := range []string{s.dir, s.path("ids")} {
		if err := locks.SweepScratch(d, s.own("garbage")); err != nil {
			return err
		}
	}
	return nil
}

// chooseMarks decides what marks are in the layers of this store.
func (s *Store) chooseMarks() error {
	probe := filepath.Join(s.tmp.Path, "marks")
	err := os.Mkdir(probe, 0o700)
	if err != nil {
		return err
	}
	s.marks, err = layers.FindMarks(probe)
	if s.marks == layers.FileMarks {
		s.ids += "-marks"
	}
	return errors.Join(err, descent.RemovePath(probe))
}

// emptyDirs are the directories below "empty", which stand in for missing lower
// ones: no layer may be given to an overlay twice, and a view of nothing needs two.
var emptyDirs = [...]string{"a", "b"}

// neutral makes the directory dir with the given mode, and takes from it what the
// directory that the store is in may hand down to files: a group and an ACL.
func (s *Store) neutral(dir string, mode os.FileMode) error {
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

// path returns the path of name in the part that all ID mappings share.
func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// own returns the path of name in the part of this ID mapping.
func (s *Store) own(name string) string { return filepath.Join(s.ids, name) }

// Close unmounts and discards what is still active, removes temporary files and
// waits until the removal of discarded trees is over. Blobs, records and
// snapshots stay. A second call does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var left []*mounted
	for m := range s.mounts {
		left = append(left, m)
	}
	s.mu.Unlock()

	var errs []error
	for _, m := range left {
		errs = append(errs, m.discard())
	}
	errs = append(errs, s.trimCheckouts(0), s.dropFlats())
	errs = append(errs, s.discard(s.tmp))
	s.collect()
	s.waste.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

// Owners returns how files below the roots of the store have owners.
func (s *Store) Owners() owners.Keeper {
	switch {
	case s.opts.RecordOwners:
		return owners.Records
	case s.opts.Snapshotter == FuseOverlay:
		return owners.Stubs
	case s.opts.HarmlessDevices:
		return owners.Harmless
	}
	return owners.Devices
}

// TempDir returns a private directory of this process for short-lived files. It
// goes when the store is closed or, if the process is killed, when the store is
// next opened by anybody.
func (s *Store) TempDir() string { return s.tmp.Path }

// Boot names the running boot of the machine, "" if boots can't be told apart here.
func (s *Store) Boot() string { return s.boot }

// Holds reports whether the file or directory path lies in the store.
func (s *Store) Holds(path string) bool {
	rel, err := filepath.Rel(s.dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// Lock waits until nobody else, in this or another process with the same ID
// mapping, holds the lock of the given name, and returns the function that gives
// it back. It goes when its process ends. Ending ctx ends the wait. If that isn't
// short, waiting is called once with the ID of the process that has the lock.
func (s *Store) Lock(ctx context.Context, name digest.Digest, waiting func(pid int)) (release func(), err error) {
	if err := name.Validate(); err != nil {
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	return locks.Wait(ctx, filepath.Join(s.own("locks"), name.Encoded()), waiting)
}

// throw has what is at path removed in the background, by the next collect.
func (s *Store) throw(path string) error {
	return os.Rename(path, filepath.Join(s.own("garbage"), rand.Text()))
}

// discard gives up c and removes it in the background.
func (s *Store) discard(c *locks.Claim) error {
	if err := c.Abandon(s.own("garbage")); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed { // then Close, or the next Open, collects
		s.collect()
	}
	return nil
}

// collect removes what is in garbage in the background. It reports nothing: what
// can't be removed now is tried again by the next Open.
func (s *Store) collect() {
	entries, err := os.ReadDir(s.own("garbage"))
	if err != nil || len(entries) == 0 {
		return
	}
	s.waste.Go(func() {
		for _, e := range entries {
			_ = descent.RemovePath(filepath.Join(s.own("garbage"), e.Name()))
		}
	})
}
