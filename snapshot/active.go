package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// mounted is a claim with an overlay mounted at its directory mnt.
type mounted struct {
	store *Store

	mu    sync.Mutex
	claim *claim // nil once it has ended
	up    bool   // whether the overlay is mounted
	root  string
}

// mount makes a claim with the given directories and mounts at its mnt the
// overlay that build returns for the path of the claim.
func (s *Store) mount(ctx context.Context, dirs []string, build func(path string) (overlay, error)) (*mounted, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c, err := newClaim(s.own("active"))
	if err != nil {
		return nil, err
	}
	m := &mounted{store: s, claim: c, up: true, root: filepath.Join(c.path, "mnt")}
	for _, d := range dirs {
		if err := os.Mkdir(filepath.Join(c.path, d), 0o700); err != nil {
			return nil, errors.Join(err, s.discard(c))
		}
	}
	o, err := build(c.path)
	if err == nil {
		err = o.mount()
	}
	if err != nil {
		return nil, errors.Join(err, s.discard(c))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(os.ErrClosed, detach(m.root), c.abandon(s.own("garbage")))
	}
	s.mounts[m] = struct{}{}
	return m, nil
}

// forget takes m off the list of what Store.Close has to end. m.mu is held.
func (m *mounted) forget() {
	m.claim = nil
	m.store.mu.Lock()
	delete(m.store.mounts, m)
	m.store.mu.Unlock()
}

// discard unmounts and removes everything; it does nothing once m has ended.
func (m *mounted) discard() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.claim == nil {
		return nil
	}
	c := m.claim
	m.forget()
	if m.up {
		if err := detach(m.root); err != nil {
			return errors.Join(err, c.lock.Close())
		}
	}
	return m.store.discard(c)
}

// An Active is a snapshot being written. Its methods may be called concurrently.
type Active struct {
	*mounted

	parent   string
	underlay *underlay // nil where what lies below is mounted
}

// Prepare mounts a new active snapshot on top of parent, nil for an empty root
// directory of mode 0755. The caller ends it by Commit or Discard.
func (s *Store) Prepare(ctx context.Context, parent *Snapshot) (*Active, error) {
	if s.indexed() {
		a, err := s.prepareOver(ctx, parent)
		if err != nil {
			return nil, fmt.Errorf("prepare snapshot: %w", err)
		}
		return a, nil
	}
	m, err := s.mount(ctx, []string{"fs", "work", "mnt"}, func(path string) (overlay, error) {
		o := overlay{
			lower:  s.below(parent, 1),
			upper:  filepath.Join(path, "fs"),
			work:   filepath.Join(path, "work"),
			target: filepath.Join(path, "mnt"),
		}
		// The root directory of an overlay is that of its upper layer.
		return o, copyRoot(o.lower[0], o.upper, s.Owners())
	})
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot: %w", err)
	}
	return &Active{mounted: m, parent: parentID(parent)}, nil
}

// Root returns the path of the mounted file system.
func (a *Active) Root() string { return a.root }

// Commit unmounts the active snapshot and makes it a snapshot with a random ID.
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
	if a.up {
		if err := unmount(a.root); err != nil {
			return nil, err
		}
		a.up = false
	}
	if a.underlay != nil {
		if err := a.underlay.settle(); err != nil {
			return nil, err
		}
		_ = a.underlay.file.Close()
	}
	sn, err := a.store.keep(a.claim, filepath.Base(a.claim.path), meta{Parent: a.parent})
	if err != nil {
		return nil, err
	}
	a.forget()
	return sn, nil
}

// Discard unmounts and removes the active snapshot, even while it is in use. It
// does nothing after Commit or another Discard.
func (a *Active) Discard() error {
	if a.underlay != nil {
		_ = a.underlay.file.Close() // again after Commit
	}
	if err := a.discard(); err != nil {
		return fmt.Errorf("discard snapshot: %w", err)
	}
	return nil
}

// A View is a snapshot mounted read-only.
type View struct{ *mounted }

// View mounts sn read-only, nil as an empty directory. The caller closes the view.
func (s *Store) View(ctx context.Context, sn *Snapshot) (*View, error) {
	if s.indexed() {
		v, err := s.viewOf(ctx, sn)
		if err != nil {
			return nil, fmt.Errorf("view snapshot: %w", err)
		}
		return v, nil
	}
	m, err := s.mount(ctx, []string{"mnt"}, func(path string) (overlay, error) {
		return overlay{lower: s.below(sn, 2), target: filepath.Join(path, "mnt")}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("view snapshot: %w", err)
	}
	return &View{m}, nil
}

// Root returns the path of the mounted file system.
func (v *View) Root() string { return v.root }

// Close unmounts the view, even while it is in use. A second call does nothing.
func (v *View) Close() error {
	if err := v.discard(); err != nil {
		return fmt.Errorf("close view: %w", err)
	}
	return nil
}
