package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/committed"
	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// mounts are the file systems of a part that are in use.
type mounts struct {
	*part

	mu     sync.Mutex
	open   map[*mounted]struct{}
	closed bool
}

// mounted is a claim with the file system that its owner works on.
type mounted struct {
	files fileSystem
	all   *mounts
	mu    sync.Mutex
	claim *locks.Claim // nil once it has ended
}

// mount makes a claim, and the file system that build returns for the path of the claim.
func (ms *mounts) mount(ctx context.Context, build func(path string) (fileSystem, error)) (*mounted, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c, err := locks.NewClaim(ms.active())
	if err != nil {
		return nil, err
	}
	f, err := build(c.Path)
	if err != nil {
		return nil, errors.Join(err, ms.bin.Discard(c))
	}
	m := &mounted{files: f, all: ms, claim: c}
	ms.mu.Lock()
	if !ms.closed {
		ms.open[m] = struct{}{}
		ms.mu.Unlock()
		return m, nil
	}
	ms.mu.Unlock()
	return nil, errors.Join(os.ErrClosed, f.End(), ms.bin.Discard(c))
}

// close ends what is still in use. No more can be mounted then. A second call does nothing
// and returns false.
func (ms *mounts) close() (first bool, _ error) {
	ms.mu.Lock()
	first = !ms.closed
	ms.closed = true
	var left []*mounted
	for m := range ms.open {
		left = append(left, m)
	}
	ms.mu.Unlock()
	var errs []error
	for _, m := range left {
		errs = append(errs, m.discard())
	}
	return first, errors.Join(errs...)
}

// forget takes m off the list of what close has to end. m.mu is held.
func (m *mounted) forget() {
	m.claim = nil
	m.all.mu.Lock()
	delete(m.all.open, m)
	m.all.mu.Unlock()
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
	if err := m.files.End(); err != nil {
		return errors.Join(err, c.Release())
	}
	return m.all.bin.Discard(c)
}

// An Active is a snapshot being written. Its methods may be called concurrently.
type Active struct {
	*mounted

	changed changedFileSystem // that is mounted
	found   finder
	parent  string
}

// errFinished is the error of an active snapshot that has ended.
var errFinished = errors.New("snapshot is already committed or discarded")

// Root returns the path of the file system.
func (a *Active) Root() string { return a.files.Root() }

// Restored says that the paths below Root were changed and are as they were, but for
// the time of their last change (st_ctime): that is then no change. Any other
// difference is one.
func (a *Active) Restored(paths []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.changed.(interface{ Restored(paths []string) error }); ok && a.claim != nil {
		return w.Restored(paths)
	}
	return nil // of an overlay, what is in the upper directory has changed
}

// A revealer is a file system in which what lies below isn't there before it is asked for.
type revealer interface {
	Reveal(path string) error
	ShowFile(ctx context.Context, path string) error
}

// Reveal returns a function that makes appear below Root what the snapshots below have at
// a path and at the directories that lead to it. Whoever writes there calls it for every
// name before looking at that. The path leads from the root through no link. Files have
// no content. Where all is there, Reveal returns nil.
func (a *Active) Reveal() func(path string) error {
	if r, ok := a.changed.(revealer); ok {
		return r.Reveal
	}
	return nil
}

// ShowFile has the regular file that path leads to, if there is one, appear below
// Root with its content.
func (a *Active) ShowFile(ctx context.Context, path string) error {
	r, ok := a.changed.(revealer)
	if !ok {
		return nil
	}
	if err := r.ShowFile(ctx, path); err != nil {
		return fmt.Errorf("find %s: %w", path, err)
	}
	return nil
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
	if err := a.changed.Settle(filepath.Join(a.claim.Path, "fs")); err != nil {
		return nil, err
	}
	id := filepath.Base(a.claim.Path)
	if err := a.all.snapshots.Keep(a.claim, id, committed.Meta{Parent: a.parent}); err != nil {
		return nil, err
	}
	sn, err := openSnapshot(a.found, a.all.owners, id)
	if err != nil {
		return nil, err
	}
	a.changed.Kept(id)
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

// Root returns the path of the file system.
func (v *View) Root() string { return v.files.Root() }

// Close ends the view, even while it is in use. A second call does nothing.
func (v *View) Close() error {
	if err := v.discard(); err != nil {
		return fmt.Errorf("close view: %w", err)
	}
	return nil
}
