// Package trash removes the trees of a store in the background.
package trash

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// A Bin is a directory of trees that are being removed. Its methods may be called
// concurrently, also by other processes that have the same directory.
type Bin struct {
	dir string

	mu     sync.Mutex // orders Collect and Close
	closed bool
	work   sync.WaitGroup
}

// In returns the bin in the directory dir, which is there.
func In(dir string) *Bin { return &Bin{dir: dir} }

// Dir returns the directory of the bin. What is renamed into it is removed by the next
// Collect of any process.
func (b *Bin) Dir() string { return b.dir }

// Throw puts what is at path into the bin.
func (b *Bin) Throw(path string) error {
	return os.Rename(path, filepath.Join(b.dir, rand.Text()))
}

// Discard puts the claim c into the bin, gives up its lock, and begins to remove it.
func (b *Bin) Discard(c *locks.Claim) error {
	if err := c.Abandon(b.dir); err != nil {
		return err
	}
	b.Collect()
	return nil
}

// Collect begins to remove what is in the bin. It reports nothing: what can't be removed
// now is tried again by the next Collect. After Close it does nothing.
func (b *Bin) Collect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.collect()
	}
}

func (b *Bin) collect() {
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) == 0 {
		return
	}
	b.work.Go(func() {
		for _, e := range entries {
			_ = descent.RemovePath(filepath.Join(b.dir, e.Name()))
		}
	})
}

// Close removes what is in the bin and waits until it is gone.
func (b *Bin) Close() {
	b.mu.Lock()
	b.closed = true
	b.collect()
	b.mu.Unlock()
	b.work.Wait()
}
