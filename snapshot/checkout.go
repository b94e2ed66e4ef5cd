package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/relpath"

	"golang.org/x/sys/unix"
)

// A checkout is a directory that has all files of a snapshot, as copies. The store
// keeps some that nobody uses, so that the steps of a chain need one copy between
// them: what one has committed the next goes on with.
type checkout struct {
	claim *locks.Claim
	id    string        // of the snapshot, "" of none
	made  chan struct{} // closed when it is there, or err says why not
	err   error
	now   *inventory
	views int // how many views show it
}

// maxIdle is how many checkouts that nobody uses a store keeps.
const maxIdle = 4

// newCheckout returns a checkout of sn that is to be made.
func newCheckout(sn *Snapshot) *checkout {
	return &checkout{id: parentID(sn), made: make(chan struct{})}
}

func (co *checkout) root() string { return filepath.Join(co.claim.Path, "mnt") }

// make makes the checkout of the given layers.
func (co *checkout) make(ctx context.Context, s *Store, layers []string) {
	defer close(co.made)
	c, err := locks.NewClaim(s.own("active"))
	if err != nil {
		co.err = err
		return
	}
	co.claim = c
	err = os.Mkdir(co.root(), 0o700)
	if err == nil {
		err = s.layOut(ctx, layers, co.root())
	}
	if err == nil {
		co.now, err = takeInventory(co.root())
	}
	if err != nil {
		co.err = errors.Join(err, s.discard(c))
	}
}

// settleClock waits until the clock of the file system has passed all changes that
// are in the inventory: the next one then has another time. Such a clock may move
// in steps of ten milliseconds.
func (co *checkout) settleClock(ctx context.Context) error {
	f, err := os.OpenFile(filepath.Join(co.claim.Path, "clock"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	const stepped = int64(time.Second) // so far behind, the clock was set back
	for {
		if err := f.Chmod(0o600); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		if ahead := co.now.latest - unix.TimespecToNsec(st.Ctim); ahead < 0 || ahead > stepped {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// sharedCheckout returns a checkout of sn for a view.
func (s *Store) sharedCheckout(ctx context.Context, sn *Snapshot) (fileSystem, error) {
	for {
		s.mu.Lock()
		i := slices.IndexFunc(s.checkouts, func(co *checkout) bool { return co.id == parentID(sn) })
		mine := i < 0
		if mine {
			i = len(s.checkouts)
			s.checkouts = append(s.checkouts, newCheckout(sn))
		}
		co := s.checkouts[i]
		co.views++
		s.mu.Unlock()
		if mine {
			co.make(ctx, s, s.below(sn, 1))
		}
		select {
		case <-ctx.Done():
		case <-co.made:
		}
		shown := &shownCheckout{co, s}
		switch {
		case ctx.Err() != nil:
			return nil, errors.Join(context.Cause(ctx), shown.end())
		case co.err == nil:
			return shown, nil
		}
		if err := errors.Join(co.err, shown.end()); mine {
			return nil, err
		}
	}
}

// writableCheckout returns a checkout of parent that is used by nobody else.
func (s *Store) writableCheckout(ctx context.Context, parent *Snapshot) (fileSystem, error) {
	layers := s.below(parent, 1)
	co := s.takeCheckout(parentID(parent))
	if co == nil {
		co = newCheckout(parent)
		if co.make(ctx, s, layers); co.err != nil {
			return nil, co.err
		}
	}
	w := &writtenCheckout{checkout: co, store: s, layers: layers}
	if err := co.settleClock(ctx); err != nil {
		return nil, errors.Join(err, w.end())
	}
	return w, nil
}

// takeCheckout takes an unused checkout of the snapshot id away from the store, nil
// if there is none.
func (s *Store) takeCheckout(id string) *checkout {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.checkouts, func(co *checkout) bool { return co.id == id && co.views == 0 })
	if i < 0 {
		return nil
	}
	co := s.checkouts[i]
	s.checkouts = slices.Delete(s.checkouts, i, i+1)
	return co
}

// trimCheckouts removes checkouts that nobody uses, until keep of them are left,
// and those that couldn't be made.
func (s *Store) trimCheckouts(keep int) error {
	s.mu.Lock()
	idle := 0
	for _, co := range s.checkouts {
		if co.views == 0 {
			idle++
		}
	}
	var gone []*checkout
	s.checkouts = slices.DeleteFunc(s.checkouts, func(co *checkout) bool {
		if co.views > 0 || co.err == nil && idle <= keep {
			return false
		}
		idle--
		gone = append(gone, co)
		return true
	})
	s.mu.Unlock()
	var errs []error
	for _, co := range gone {
		if co.err == nil {
			errs = append(errs, s.discard(co.claim))
		}
	}
	return errors.Join(errs...)
}

// shownCheckout is a checkout in a view.
type shownCheckout struct {
	*checkout

	store *Store
}

func (*shownCheckout) settle(string) error { return errFinished } // only what is active is committed
func (*shownCheckout) kept(*Snapshot)      {}

func (v *shownCheckout) end() error {
	s := v.store
	s.mu.Lock()
	v.views--
	if i := slices.Index(s.checkouts, v.checkout); i >= 0 && v.views == 0 { // the latest used is the last
		s.checkouts = append(slices.Delete(s.checkouts, i, i+1), v.checkout)
	}
	s.mu.Unlock()
	return s.trimCheckouts(maxIdle)
}

// writtenCheckout is a checkout in an active snapshot.
type writtenCheckout struct {
	*checkout

	store  *Store
	layers []string   // that it was made of
	next   *inventory // with the changes that settle has found
}

// restored notes the ctime of what has changed in nothing else.
func (w *writtenCheckout) restored(paths []string) error {
	root, err := unix.Open(w.root(), file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: w.root(), Err: err}
	}
	defer unix.Close(root)
	for _, path := range paths {
		if path == "." {
			path = ""
		}
		n := w.now.root.at(path)
		if n == nil {
			continue
		}
		parent, base := relpath.Split(path)
		fd, err := descent.Open(root, cmp.Or(parent, "."), unix.O_DIRECTORY)
		if err != nil {
			continue // another change
		}
		now, err := new(inventory).stat(fd, base)
		unix.Close(fd)
		if err != nil {
			continue // another change, too
		}
		was := n.state
		was.ctime = now.ctime
		if was == now.state {
			n.state = was
		}
	}
	return nil
}

// settle copies what has changed since the checkout was made.
func (w *writtenCheckout) settle(layer string) error {
	if err := descent.RemovePath(layer); err != nil {
		return err
	}
	if err := os.Mkdir(layer, 0o700); err != nil {
		return err
	}
	now, err := takeInventory(w.root())
	if err != nil {
		return err
	}
	root, err := unix.Open(w.root(), file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: w.root(), Err: err}
	}
	defer unix.Close(root)
	keeper, marks := w.store.Owners(), w.store.marks
	to, err := file.NewCopier(layer, keeper)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &changes{Copier: to, original: layers.New(w.layers, keeper, marks), root: root, marks: marks}
	defer c.original.Close()
	if err := c.write(context.Background(), w.now.root, now.root); err != nil {
		return fmt.Errorf("look for changes in %s: %w", w.root(), err)
	}
	w.next = now
	return nil
}

// kept gives the checkout to the store, as one of sn.
func (w *writtenCheckout) kept(sn *Snapshot) {
	w.now, w.id = w.next, sn.id
	w.store.mu.Lock()
	w.store.checkouts = append(w.store.checkouts, w.checkout)
	w.store.mu.Unlock()
	_ = w.store.trimCheckouts(maxIdle) // what stays is removed when the store is closed
}

func (w *writtenCheckout) end() error { return w.store.discard(w.claim) }
