package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/blobs"
	"github.com/bobbuild/bob/snapshot/internal/cachemounts"
	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/records"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The nouns of a store that packages of its own keep.
type (
	// A BlobWriter takes the bytes of a new blob. It is for one goroutine.
	BlobWriter = blobs.Writer
	// A CacheMount is a directory that outlives builds and is no part of any image, held
	// by one user. Its methods may be called concurrently.
	CacheMount = cachemounts.CacheMount
	// Sharing says who may use a cache mount at the same time.
	Sharing = cachemounts.Sharing
	// An Item is one thing that the store keeps for later builds.
	Item = pruning.Item
	// An ItemKind says what an [Item] is.
	ItemKind = pruning.Kind
	// PruneOptions say what Prune removes. The zero value removes everything that is not
	// in use.
	PruneOptions = pruning.Options
	// A Layer is a layer of an image, to be unpacked.
	Layer = content.Layer
	// A DiffIDError says that a layer's content is not what the image says of it.
	DiffIDError = content.DiffIDError
)

// The kinds of items.
const (
	ItemSnapshot   = pruning.Snapshot
	ItemBlob       = pruning.Blob
	ItemRecord     = pruning.Record
	ItemCacheMount = pruning.CacheMount
)

// The kinds of sharing, as RUN --mount=type=cache,sharing= has them.
const (
	Shared  = cachemounts.Shared  // any number of users together
	Private = cachemounts.Private // one user; whoever finds it in use gets another directory
	Locked  = cachemounts.Locked  // one user; whoever finds it in use waits
)

// StackID returns the ID of the snapshot that [Store.UnpackOver] makes of a layer over
// the snapshot parent, "" for nothing. For layers that lie on nothing else it is their
// chain ID.
func StackID(parent string, diffID digest.Digest) string { return content.StackID(parent, diffID) }

// A Store is a directory of blobs, records and snapshots. Its methods may be
// called concurrently, and other processes may have the same directory open.
type Store struct {
	dir     string // absolute
	usage   *usage.Usage
	part    *part
	blobs   *blobs.Blobs
	records *records.Records
	caches  *cachemounts.Caches
	pruning *pruning.Store
	found   finder
	how     snapshotter
	mounts  *mounts
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
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"blobs", filepath.Join("blobs", digest.SHA256.String()), "records", "tmp", "ids"} {
		if err := makeDirs(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	u, err := usage.Begin(dir)
	if err != nil {
		return nil, err
	}
	s, err := openUsed(dir, o, u)
	if err != nil {
		return nil, errors.Join(err, u.Drop())
	}
	s.part.bin.Collect()
	return s, nil
}

// openUsed opens the store in dir, which this process uses.
func openUsed(dir string, o Options, u *usage.Usage) (*Store, error) {
	p, err := openPart(dir, o, u)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, usage: u, part: p,
		blobs:   blobs.Of(dir, u, p.bin),
		records: records.Of(dir, u, p.boots, p.bin),
		caches:  cachemounts.Of(p.path("caches"), p.active(), u, p.boots, p.bin),
		mounts:  &mounts{part: p, open: map[*mounted]struct{}{}},
	}
	s.pruning = &pruning.Store{Usage: u, Keepers: []pruning.Keeper{p.snapshots, s.caches, s.blobs, s.records}}
	all := unpacked{p}
	switch o.Snapshotter {
	case "", Overlay, FuseOverlay:
		s.found, s.how = all, &overlays{all, checkout.NewFlats(p.copies()), o.Snapshotter == FuseOverlay}
	case Copy:
		s.found, s.how = all, &copies{all, checkout.In(p.copies())}
	case Index:
		some := &indexed{part: p, records: s.records, blobs: s.blobs, trees: map[string]*tree.Node{}}
		s.found, s.how = some, indexes{some}
	default:
		return nil, fmt.Errorf("there is no snapshotter %q: use %s, %s, %s or %s", o.Snapshotter, Overlay, FuseOverlay, Copy, Index)
	}
	return s, nil
}

// Close unmounts and discards what is still active, removes temporary files and
// waits until the removal of discarded trees is over. Blobs, records and
// snapshots stay. A second call does nothing.
func (s *Store) Close() error {
	first, err := s.mounts.close()
	if !first {
		return nil
	}
	err = errors.Join(err, s.how.close(), s.usage.End(s.part.bin.Dir()))
	s.part.bin.Close()
	if err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

// Owners returns how files below the roots of the store have owners.
func (s *Store) Owners() owners.Keeper { return s.part.owners }

// TempDir returns a private directory of this process for short-lived files. It
// goes when the store is closed or, if the process is killed, when the store is
// next opened by anybody.
func (s *Store) TempDir() string { return s.usage.TempDir() }

// Boot names the running boot of the machine, "" if boots can't be told apart here.
func (s *Store) Boot() string { return s.part.boots.Running() }

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
	return locks.Wait(ctx, filepath.Join(s.part.path("locks"), name.Encoded()), waiting)
}

// CreateBlob begins a blob. The caller ends it by Commit or Close.
func (s *Store) CreateBlob() (*BlobWriter, error) { return s.blobs.Create() }

// HasBlob reports whether the blob d, of size bytes, is there. It isn't read: only
// OpenBlob finds out whether it has the bytes of d.
func (s *Store) HasBlob(d digest.Digest, size int64) (bool, error) { return s.blobs.Has(d, size) }

// OpenBlob opens the blob d for reading; the caller closes it. The error of a
// blob that isn't there is fs.ErrNotExist. One that this process hasn't written is
// read first, as far as ctx allows: if it isn't what it was, it is removed.
func (s *Store) OpenBlob(ctx context.Context, d digest.Digest) (*os.File, error) {
	return s.blobs.Open(ctx, d)
}

// PutRecord stores value under kind and key, in place of any value there. Readers in
// any process see the old value or the new one, never a part.
//
// A kind is lower-case letters, digits and hyphens, and its version: "-" and a number.
// Whoever changes how values of a kind are computed or written counts it up, so that
// no release reads what another one meant differently.
func (s *Store) PutRecord(kind string, key digest.Digest, value []byte) error {
	return s.records.Put(kind, key, value)
}

// Record returns the value under kind and key. The error of one that isn't there, is
// damaged or may have been lost in a power failure is fs.ErrNotExist.
func (s *Store) Record(kind string, key digest.Digest) ([]byte, error) {
	return s.records.Get(kind, key)
}

// CacheMount returns a directory of the cache that key names, for as long as
// the caller doesn't close it. All builds and processes of the store with the
// same ID mapping share it; nothing but the user removes it. If there is none
// that may be used, fill makes the file or directory at the path it is given,
// whose parent is empty. While Locked waits for others, waiting is called once,
// if it isn't nil; ctx ends the wait.
func (s *Store) CacheMount(ctx context.Context, key digest.Digest, sharing Sharing, waiting func(), fill func(path string) error) (*CacheMount, error) {
	return s.caches.Open(ctx, key, sharing, waiting, fill)
}

// Items lists all that the store keeps for this ID mapping, in no order. What
// other processes remove meanwhile is left out.
func (s *Store) Items(ctx context.Context) ([]Item, error) {
	items, err := s.pruning.Items(ctx)
	if err != nil {
		return nil, fmt.Errorf("list store %s: %w", s.dir, err)
	}
	return items, nil
}

// Prune removes what the store keeps, the least recently used first, and returns
// what it removed. Nothing goes that a living process has used, nor a snapshot
// that another one lies on. Any number of processes may use the store meanwhile. What
// can't be removed keeps nothing else from it; the first reason is returned.
// The space is free when the store is closed.
func (s *Store) Prune(ctx context.Context, o PruneOptions) ([]Item, error) {
	removed, err := s.pruning.Prune(ctx, o)
	for _, tidy := range []func() error{func() error { return locks.Tidy(s.part.path("locks")) }, s.caches.Tidy, s.part.boots.Forget} {
		if err == nil {
			err = tidy()
		}
	}
	s.part.bin.Collect()
	if err != nil {
		return removed, fmt.Errorf("prune store %s: %w", s.dir, err)
	}
	if err := os.WriteFile(s.prunedPath(), nil, 0o600); err != nil {
		return removed, fmt.Errorf("prune store: %w", err)
	}
	return removed, nil
}

// SincePrune returns how long ago any process called Prune for the store. It returns the
// longest duration if nobody has or that time is not known.
func (s *Store) SincePrune() time.Duration {
	fi, err := os.Stat(s.prunedPath())
	if err != nil {
		return math.MaxInt64
	}
	if since := time.Since(fi.ModTime()); since >= 0 {
		return since
	}
	return math.MaxInt64 // the clock was set back
}

// prunedPath is the file whose time says when Prune was called.
func (s *Store) prunedPath() string { return filepath.Join(s.dir, "pruned") }

// Snapshot returns the committed snapshot id. The error of one that isn't there, that
// may have lost something in a power failure, or that lies on what is only indexed and
// neither offered nor in the store, is fs.ErrNotExist.
func (s *Store) Snapshot(id string) (*Snapshot, error) {
	return openSnapshot(s.found, s.part.owners, id)
}

// Prepare makes a new active snapshot on top of parent, nil for an empty root
// directory of mode 0755. The caller ends it by Commit or Discard.
func (s *Store) Prepare(ctx context.Context, parent *Snapshot) (*Active, error) {
	a := &Active{found: s.found, parent: stackOf(parent).ID}
	var err error
	a.mounted, err = s.mounts.mount(ctx, func(path string) (fileSystem, error) {
		a.changed, err = s.how.prepare(ctx, path, stackOf(parent))
		return a.changed, err
	})
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	return a, nil
}

// View shows sn, nil as an empty directory. It is mounted read-only, but with
// [Copy]: then it is a copy that all views of sn share, and that a step may change
// later, so that nothing may be written to it. The caller closes the view.
func (s *Store) View(ctx context.Context, sn *Snapshot) (*View, error) {
	m, err := s.mounts.mount(ctx, func(path string) (fileSystem, error) { return s.how.view(ctx, path, stackOf(sn)) })
	if err != nil {
		return nil, fmt.Errorf("view snapshot: %w", err)
	}
	return &View{m}, nil
}

// Offer tells the store where the layers of an image are, base first, that it may
// have to unpack after all. Only a store with the snapshotter [Index] has use for it.
func (s *Store) Offer(layers []Layer) { s.found.offer("", layers) }

// Unpack makes the snapshot of the given layers, base first, and the snapshots of all
// stacks below it, except what the store has: each is made once, whoever
// asks for it in this or another process. Up to jobs layers (0: as many as there
// are processors) are opened and extracted at once. A layer whose DiffID turns
// out wrong leaves nothing behind. Without layers it returns nil, which stands for
// an empty file system.
func (s *Store) Unpack(ctx context.Context, layers []Layer, jobs int) (*Snapshot, error) {
	return s.UnpackOver(ctx, nil, layers, jobs)
}

// UnpackOver is [Store.Unpack] of layers that lie on parent, which may be nil. Without
// layers it returns parent.
func (s *Store) UnpackOver(ctx context.Context, parent *Snapshot, layers []Layer, jobs int) (*Snapshot, error) {
	if len(layers) == 0 {
		return parent, nil
	}
	for _, l := range layers {
		if err := l.Check(); err != nil {
			return nil, fmt.Errorf("unpack layer %s: %w", l.Name(), err)
		}
	}
	id, err := s.how.unpack(ctx, stackOf(parent).ID, layers, jobs)
	if err != nil {
		return nil, err
	}
	return s.Snapshot(id)
}
