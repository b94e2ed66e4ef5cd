package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// A fileSystem is what an active snapshot or a view has at its root.
type fileSystem interface {
	// root returns the path of its root directory.
	root() string
	// settle leaves what was changed in the directory layer, in overlay format.
	settle(layer string) error
	// kept says that what was changed is the snapshot sn now. It ends it.
	kept(sn *Snapshot)
	// end ends it at once, whoever uses it.
	end() error
}

// mounted is a claim with the file system that its owner works on.
type mounted struct {
	fileSystem

	store *Store
	mu    sync.Mutex
	claim *locks.Claim // nil once it has ended
}

// mount makes a claim with the given directories, and the file system that build
// returns for the path of the claim.
func (s *Store) mount(ctx context.Context, dirs []string, build func(path string) (fileSystem, error)) (*mounted, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c, err := locks.NewClaim(s.own("active"))
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(c.Path, d), 0o700); err != nil {
			return nil, errors.Join(err, s.discard(c))
		}
	}
	f, err := build(c.Path)
	if err != nil {
		return nil, errors.Join(err, s.discard(c))
	}
	m := &mounted{store: s, claim: c, fileSystem: f}
	s.mu.Lock()
	if !s.closed {
		s.mounts[m] = struct{}{}
		s.mu.Unlock()
		return m, nil
	}
	s.mu.Unlock()
	return nil, errors.Join(os.ErrClosed, f.end(), c.Abandon(s.own("garbage")))
}

// forget takes m off the list of what Store.Close has to end. m.mu is held.
func (m *mounted) forget() {
	m.claim = nil
	m.store.mu.Lock()
	delete(m.store.mounts, m)
	m.store.mu.Unlock()
}

// discard ends and removes everything; it does nothing once m has ended.
func (m *mounted) discard() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claim == nil {
		return nil
	}
	c := m.claim
	m.forget()
	if err := m.end(); err != nil {
		return errors.Join(err, c.Release())
	}
	return m.store.discard(c)
}

// An Active is a snapshot being written. Its methods may be called concurrently.
type Active struct {
	*mounted

	parent   string
	underlay *underlay // nil where what lies below is mounted
}

// Prepare makes a new active snapshot on top of parent, nil for an empty root
// directory of mode 0755. The caller ends it by Commit or Discard.
func (s *Store) Prepare(ctx context.Context, parent *Snapshot) (*Active, error) {
	if s.indexed() {
		a, err := s.prepareOver(ctx, parent)
		if err != nil {
			return nil, fmt.Errorf("prepare snapshot: %w", err)
		}
		return a, nil
	}
	dirs := []string{"fs", "work", "mnt"}
	if s.opts.Snapshotter == Copy {
		dirs = nil
	}
	m, err := s.mount(ctx, dirs, func(path string) (fileSystem, error) {
		if s.opts.Snapshotter == Copy {
			return s.writableCheckout(ctx, parent)
		}
		o := overlay{
			lower:  s.below(parent, 1),
			upper:  filepath.Join(path, "fs"),
			work:   filepath.Join(path, "work"),
			target: filepath.Join(path, "mnt"),
		}
		// The root directory of an overlay is that of its upper layer.
		if err := file.CopyAttrs(o.lower[0], o.upper, s.Owners()); err != nil {
			return nil, err
		}
		return s.mountOverlay(ctx, o)
	})
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	return &Active{mounted: m, parent: parentID(parent)}, nil
}

// mountOverlay mounts o as the store's snapshotter does.
func (s *Store) mountOverlay(ctx context.Context, o overlay) (fileSystem, error) {
	lower, err := s.fewer(ctx, o.lower, maxLayers)
	if err != nil {
		return nil, err
	}
	o.lower = lower
	if s.opts.Snapshotter == FuseOverlay {
		return s.mountFuse(ctx, o)
	}
	if s.marks == layers.FileMarks {
		return nil, fmt.Errorf("the kernel's overlay needs devices 0:0 for removed files, which can't be made in %s%s", s.dir, unsuitable(s.dir))
	}
	if err = o.mount(); err != nil && len(lower) > classicLayers { // before Linux 6.5
		if o.lower, err = s.fewer(ctx, lower, classicLayers); err == nil {
			err = o.mount()
		}
	}
	return &overlayMount{target: o.target}, err
}

// Root returns the path of the file system.
func (a *Active) Root() string { return a.root() }

// Restored says that the paths below Root were changed and are as they were, but for
// the time of their last change (st_ctime): that is then no change. Whatever else is
// different of them is one.
func (a *Active) Restored(paths []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.fileSystem.(*writtenCheckout); ok && a.claim != nil {
		return w.restored(paths)
	}
	return nil // the tree of an overlay has what changed in its upper directory
}

// Commit makes the active snapshot a snapshot with a random ID, and ends it.
// Nothing may have a file below Root open for writing. After an error the active
// snapshot is as it was, and the caller discards it.
func (a *Active) Commit() (*Snapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.claim == nil {
		return nil, fmt.Errorf("commit snapshot: %w", errFinished)
	}
	sn, err := a.commit()
	if err != nil {
		return nil, fmt.Errorf("commit snapshot: %w", err)
	}
	return sn, nil
}

func (a *Active) commit() (*Snapshot, error) {
	if err := a.settle(filepath.Join(a.claim.Path, "fs")); err != nil {
		return nil, err
	}
	sn, err := a.store.keep(a.claim, filepath.Base(a.claim.Path), meta{Parent: a.parent})
	if err != nil {
		return nil, err
	}
	a.kept(sn)
	a.forget()
	return sn, nil
}

// Discard ends and removes the active snapshot, even while it is in use. It does
// nothing after Commit or another Discard.
func (a *Active) Discard() error {
	if err := a.discard(); err != nil {
		return fmt.Errorf("discard snapshot: %w", err)
	}
	return nil
}

// A View is a snapshot to be read.
type View struct{ *mounted }

// View shows sn, nil as an empty directory. It is mounted read-only, but with
// [Copy]: then it is a copy that all views of sn share, and that a step may change
// later, so that nothing may be written to it. The caller closes the view.
func (s *Store) View(ctx context.Context, sn *Snapshot) (*View, error) {
	if s.indexed() {
		v, err := s.viewOf(ctx, sn)
		if err != nil {
			return nil, fmt.Errorf("view snapshot: %w", err)
		}
		return v, nil
	}
	dirs := []string{"mnt"}
	if s.opts.Snapshotter == Copy {
		dirs = nil
	}
	m, err := s.mount(ctx, dirs, func(path string) (fileSystem, error) {
		if s.opts.Snapshotter == Copy {
			return s.sharedCheckout(ctx, sn)
		}
		return s.mountOverlay(ctx, overlay{lower: s.below(sn, 2), target: filepath.Join(path, "mnt")})
	})
	if err != nil {
		return nil, fmt.Errorf("view snapshot: %w", err)
	}
	return &View{m}, nil
}

// Root returns the path of the file system.
func (v *View) Root() string { return v.root() }

// Close ends the view, even while it is in use. A second call does nothing.
func (v *View) Close() error {
	if err := v.discard(); err != nil {
		return fmt.Errorf("close view: %w", err)
	}
	return nil
}
