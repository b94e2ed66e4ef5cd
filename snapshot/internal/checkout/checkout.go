// Package checkout makes directories that have all files of a stack of layers, as copies,
// and finds what has changed in one.
package checkout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// A Stack is a snapshot to be copied: layers with the top first, which ID names. The ID
// is "" for an empty directory.
type Stack struct {
	ID     string
	Layers []string
}

// Checkouts are the checkouts of a store. Some that nobody uses are kept, so that the
// steps of a chain need one copy between them: what one has committed the next goes on
// with. Methods may be called concurrently.
type Checkouts struct {
	place Place

	mu  sync.Mutex
	all []*checkout // the least recently used first
}

// In returns no checkouts yet, which will be in the place.
func In(p Place) *Checkouts { return &Checkouts{place: p} }

// Close removes the checkouts that nobody uses.
func (cs *Checkouts) Close() error { return cs.trim(0) }

// A checkout is a directory that has all files of a snapshot, as copies.
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

// newCheckout returns a checkout of the snapshot id that is to be made.
func newCheckout(id string) *checkout { return &checkout{id: id, made: make(chan struct{})} }

// Root returns the path of the directory.
func (co *checkout) Root() string { return filepath.Join(co.claim.Path, "mnt") }

// make makes the checkout of the given layers.
func (co *checkout) make(ctx context.Context, p Place, layers []string) {
	defer close(co.made)
	c, err := locks.NewClaim(p.Active)
	if err != nil {
		co.err = err
		return
	}
	co.claim = c
	err = os.Mkdir(co.Root(), 0o700)
	if err == nil {
		err = p.layOut(ctx, layers, co.Root())
	}
	if err == nil {
		co.now, err = takeInventory(co.Root())
	}
	if err != nil {
		co.err = errors.Join(err, p.Bin.Discard(c))
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

// Show returns a checkout of the stack for a view, which shares it with other views. The
// caller ends it.
func (cs *Checkouts) Show(ctx context.Context, st Stack) (*Shown, error) {
	for {
		cs.mu.Lock()
		i := slices.IndexFunc(cs.all, func(co *checkout) bool { return co.id == st.ID })
		mine := i < 0
		if mine {
			i = len(cs.all)
			cs.all = append(cs.all, newCheckout(st.ID))
		}
		co := cs.all[i]
		co.views++
		cs.mu.Unlock()
		if mine {
			co.make(ctx, cs.place, st.Layers)
		}
		select {
		case <-ctx.Done():
		case <-co.made:
		}
		shown := &Shown{co, cs}
		switch {
		case ctx.Err() != nil:
			return nil, errors.Join(context.Cause(ctx), shown.End())
		case co.err == nil:
			return shown, nil
		}
		if err := errors.Join(co.err, shown.End()); mine {
			return nil, err
		}
	}
}

// Write returns a checkout of the stack that nobody else uses, to be changed. The caller
// ends it, or settles it and calls Kept.
func (cs *Checkouts) Write(ctx context.Context, st Stack) (*Written, error) {
	co := cs.take(st.ID)
	if co == nil {
		co = newCheckout(st.ID)
		if co.make(ctx, cs.place, st.Layers); co.err != nil {
			return nil, co.err
		}
	}
	w := &Written{checkout: co, all: cs, layers: st.Layers}
	if err := co.settleClock(ctx); err != nil {
		return nil, errors.Join(err, w.End())
	}
	return w, nil
}

// take takes an unused checkout of the snapshot id away from the others, nil if there is
// none.
func (cs *Checkouts) take(id string) *checkout {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	i := slices.IndexFunc(cs.all, func(co *checkout) bool { return co.id == id && co.views == 0 })
	if i < 0 {
		return nil
	}
	co := cs.all[i]
	cs.all = slices.Delete(cs.all, i, i+1)
	return co
}

// trim removes checkouts that nobody uses, until keep of them are left,
// and those that couldn't be made.
func (cs *Checkouts) trim(keep int) error {
	cs.mu.Lock()
	idle := 0
	for _, co := range cs.all {
		if co.views == 0 {
			idle++
		}
	}
	var gone []*checkout
	cs.all = slices.DeleteFunc(cs.all, func(co *checkout) bool {
		if co.views > 0 || co.err == nil && idle <= keep {
			return false
		}
		idle--
		gone = append(gone, co)
		return true
	})
	cs.mu.Unlock()
	var errs []error
	for _, co := range gone {
		if co.err == nil {
			errs = append(errs, cs.place.Bin.Discard(co.claim))
		}
	}
	return errors.Join(errs...)
}

// Shown is a checkout in a view.
type Shown struct {
	*checkout

	all *Checkouts
}

// End gives the checkout back.
func (v *Shown) End() error {
	cs := v.all
	cs.mu.Lock()
	v.views--
	if i := slices.Index(cs.all, v.checkout); i >= 0 && v.views == 0 { // the latest used is the last
		cs.all = append(slices.Delete(cs.all, i, i+1), v.checkout)
	}
	cs.mu.Unlock()
	return cs.trim(maxIdle)
}

// Written is a checkout in an active snapshot.
type Written struct {
	*checkout

	all    *Checkouts
	layers []string   // that it was made of
	next   *inventory // with the changes that settle has found
}

// Restored says that the paths below Root were changed and are as they were, but for their
// ctime. It notes that of each that has changed in nothing else.
func (w *Written) Restored(paths []string) error {
	root, err := unix.Open(w.Root(), file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: w.Root(), Err: err}
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

// Settle copies what has changed since the checkout was made to the directory layer, in
// overlay format.
func (w *Written) Settle(layer string) error {
	if err := descent.RemovePath(layer); err != nil {
		return err
	}
	if err := os.Mkdir(layer, 0o700); err != nil {
		return err
	}
	now, err := takeInventory(w.Root())
	if err != nil {
		return err
	}
	root, err := unix.Open(w.Root(), file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: w.Root(), Err: err}
	}
	defer unix.Close(root)
	keeper, marks := w.all.place.Owners, w.all.place.Marks
	to, err := file.NewCopier(layer, keeper)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &changes{Copier: to, original: layers.New(w.layers, keeper, marks), root: root, marks: marks}
	defer c.original.Close()
	if err := c.write(context.Background(), w.now.root, now.root); err != nil {
		return fmt.Errorf("look for changes in %s: %w", w.Root(), err)
	}
	w.next = now
	return nil
}

// Kept says that what Settle has found is the snapshot id now. It gives the checkout to
// those that are kept, as one of that.
func (w *Written) Kept(id string) {
	w.now, w.id = w.next, id
	w.all.mu.Lock()
	w.all.all = append(w.all.all, w.checkout)
	w.all.mu.Unlock()
	_ = w.all.trim(maxIdle) // what stays is removed by Close
}

// End removes the checkout.
func (w *Written) End() error { return w.all.place.Bin.Discard(w.claim) }
