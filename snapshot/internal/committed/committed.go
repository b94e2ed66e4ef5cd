// Package committed keeps the committed snapshots of a store: directories in overlay
// format, each with a file that says what it lies on.
package committed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/durable"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
)

// version is the version of the form in which layers lie on the disk. Since 2 they have
// all their devices.
const version = 2

// Meta says what a snapshot is. It is the content of metaName.
type Meta struct {
	Version int    `json:"version"`
	Parent  string `json:"parent,omitempty"`
	// Opaque says that the root hides all of the parent. Overlay doesn't look for
	// its attribute at the root of a layer, so the mount leaves the parent out.
	Opaque bool `json:"opaque,omitempty"`

	durable.Stamp
}

// metaName is the file that carries the time of last use, too.
const metaName = "meta.json"

// Snapshots are the committed snapshots of one ID mapping of a store. Their methods may be
// called concurrently, also in several processes.
type Snapshots struct {
	dir   string
	usage *usage.Usage
	boots *durable.Boots
	bin   *trash.Bin
	metas sync.Map // by ID
}

// Of returns the snapshots in the directory dir.
func Of(dir string, u *usage.Usage, b *durable.Boots, bin *trash.Bin) *Snapshots {
	return &Snapshots{dir: dir, usage: u, boots: b, bin: bin}
}

// Layer returns the directory with the files of the snapshot id, in overlay format.
func (s *Snapshots) Layer(id string) string { return filepath.Join(s.path(id), "fs") }

func (s *Snapshots) path(id string) string { return filepath.Join(s.dir, id) }

// Mark marks the snapshot id as used now. The error of one that isn't there is
// fs.ErrNotExist.
func (s *Snapshots) Mark(id string) error {
	return s.usage.Mark(filepath.Join(s.path(id), metaName))
}

// Meta returns what the snapshot id is; as that never changes, it is read once. The error
// of one that isn't there, that has an older form, or that may have lost something in a
// power failure is fs.ErrNotExist.
func (s *Snapshots) Meta(id string) (Meta, error) {
	if m, ok := s.metas.Load(id); ok {
		return m.(Meta), nil //nolint:forcetypeassert // nothing else is stored
	}
	m, err := s.parseMeta(id)
	if err == nil {
		s.metas.Store(id, m)
	}
	return m, err
}

func (s *Snapshots) parseMeta(id string) (Meta, error) {
	var m Meta
	path := filepath.Join(s.path(id), metaName)
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil || m.Version == 0 {
		return Meta{}, &fs.PathError{Op: "parse", Path: path, Err: fs.ErrNotExist}
	}
	if m.Version < version { // as if it weren't there: it is made again
		return Meta{}, &fs.PathError{Op: "use", Path: path, Err: fs.ErrNotExist}
	}
	if m.Version != version {
		return Meta{}, fmt.Errorf("%s: version %d is not %d: remove the store", path, m.Version, version)
	}
	if !s.boots.Holds(m.Stamp) {
		return Meta{}, &fs.PathError{Op: "trust", Path: path, Err: fs.ErrNotExist}
	}
	return m, nil
}

// Keep makes a snapshot with the given ID of the claim c, which has the layer in its
// directory fs. That ends the claim. Keep sets the version and the stamp of m. If another
// process has made the snapshot, the error is fs.ErrExist.
func (s *Snapshots) Keep(c *locks.Claim, id string, m Meta) error {
	m.Version, m.Stamp = version, s.boots.Now()
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file := filepath.Join(c.Path, metaName)
	if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		return err
	}
	if err := s.usage.Touch(file); err != nil {
		return err
	}
	for _, name := range []string{"work", "mnt"} {
		if err := descent.RemovePath(filepath.Join(c.Path, name)); err != nil {
			return err
		}
	}
	if _, err := s.Meta(id); errors.Is(err, fs.ErrNotExist) { // nobody can use what is there
		err := s.bin.Throw(s.path(id))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return c.Become(s.path(id))
}

// List calls add for each snapshot. Its size never changes.
func (s *Snapshots) List(ctx context.Context, _ bool, add func(pruning.Entry)) error {
	return pruning.EachFile(s.dir, func(f fs.DirEntry) error {
		path := s.path(f.Name())
		e, err := pruning.Directory(pruning.Item{Kind: pruning.Snapshot, ID: f.Name()}, path, metaName)
		if err != nil {
			return err
		}
		m, err := s.Meta(e.ID) // one that can't be read lies on nothing
		e.Lost = errors.Is(err, fs.ErrNotExist)
		e.Parent = m.Parent
		if e.Size, err = pruning.TreeSize(ctx, s.usage, path, false); err != nil {
			return err
		}
		add(e)
		return nil
	})
}

// Remove removes the snapshot e unless it has been used since it was listed.
func (s *Snapshots) Remove(e pruning.Entry) (gone bool, err error) {
	gone, err = e.Throw(s.usage, s.bin)
	if gone {
		s.metas.Delete(e.ID)
	}
	return gone, err
}
