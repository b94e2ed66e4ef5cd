package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// metaVersion is the version of the form in which layers lie on the disk. Since 2 they have all their devices.
const metaVersion = 2

// meta is the content of meta.json.
type meta struct {
	Version int    `json:"version"`
	Parent  string `json:"parent,omitempty"`
	// Opaque says that the root hides all of the parent. Overlay doesn't look for
	// its attribute at the root of a layer, so the mount leaves the parent out.
	Opaque bool `json:"opaque,omitempty"`

	stamp
}

// A Snapshot is a committed snapshot. It is immutable and may be used
// concurrently as long as its store is open.
type Snapshot struct {
	store  *Store
	id     string
	layers []string // directories in overlay format that make it up, top first; less what is only indexed
}

// ID returns the name under which Store.Snapshot finds the snapshot, in any
// process with the same ID mapping.
func (sn *Snapshot) ID() string { return sn.id }

// Parent returns the ID of the snapshot that this one lies on, "" if there is none.
func (sn *Snapshot) Parent() string {
	parent, err := sn.store.parentOf(sn.id)
	if err != nil {
		return "" // can't be: to open sn it was read
	}
	return parent
}

// parentOf returns the ID of what the snapshot id lies on.
func (s *Store) parentOf(id string) (string, error) {
	m, err := s.readMeta(id)
	if errors.Is(err, fs.ErrNotExist) && s.indexed() {
		rec, err := s.stackOf(id)
		return rec.Parent, err
	}
	return m.Parent, err
}

var idPattern = regexp.MustCompile(`^[0-9a-f]{32,128}$`)

// Snapshot returns the committed snapshot id. The error of one that isn't there, that
// may have lost something in a power failure, or that lies on what is only indexed and
// neither offered nor in the store, is fs.ErrNotExist.
func (s *Store) Snapshot(id string) (*Snapshot, error) {
	sn := &Snapshot{store: s, id: id}
	if idPattern.MatchString(id) {
		if err := s.use(filepath.Join(s.snapshotDir(id), "meta.json")); err != nil {
			if _, indexed := s.stackOf(id); indexed != nil {
				return nil, fmt.Errorf("open snapshot %s: %w", id, err)
			}
		}
	}
	seen := map[string]bool{}
	for opaque := false; id != ""; {
		if !idPattern.MatchString(id) || seen[id] {
			return nil, fmt.Errorf("open snapshot %q: %w", id, fs.ErrNotExist)
		}
		seen[id] = true
		m, err := s.readMeta(id)
		if err != nil {
			if rec, indexed := s.stackOf(id); indexed == nil {
				if _, ok := s.whereIs(id, rec); !ok {
					return nil, fmt.Errorf("open snapshot %s: layer %s: %w", sn.id, rec.DiffID, fs.ErrNotExist)
				}
				id = rec.Parent // has no directory
				continue
			}
			return nil, fmt.Errorf("open snapshot %s: %w", id, err)
		}
		if !opaque {
			sn.layers = append(sn.layers, filepath.Join(s.snapshotDir(id), "fs"))
		}
		opaque = opaque || m.Opaque
		id = m.Parent
	}
	if sn.id == "" {
		return nil, fmt.Errorf("open snapshot %q: %w", id, fs.ErrNotExist)
	}
	return sn, nil
}

func (s *Store) snapshotDir(id string) string { return filepath.Join(s.own("snapshots"), id) }

// readMeta returns the meta of a snapshot; as it never changes, it is read once.
func (s *Store) readMeta(id string) (meta, error) {
	if m, ok := s.metas.Load(id); ok {
		return m.(meta), nil //nolint:forcetypeassert // nothing else is stored
	}
	m, err := s.parseMeta(id)
	if err == nil {
		s.metas.Store(id, m)
	}
	return m, err
}

func (s *Store) parseMeta(id string) (meta, error) {
	var m meta
	path := filepath.Join(s.snapshotDir(id), "meta.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil || m.Version == 0 {
		return meta{}, &fs.PathError{Op: "parse", Path: path, Err: fs.ErrNotExist}
	}
	if m.Version < metaVersion { // as if it weren't there: it is made again
		return meta{}, &fs.PathError{Op: "use", Path: path, Err: fs.ErrNotExist}
	}
	if m.Version != metaVersion {
		return meta{}, fmt.Errorf("%s: version %d is not %d: remove the store", path, m.Version, metaVersion)
	}
	if !s.holds(m.stamp) {
		return meta{}, &fs.PathError{Op: "trust", Path: path, Err: fs.ErrNotExist}
	}
	return m, nil
}

// keep makes the claim c, which holds fs, the snapshot id.
func (s *Store) keep(c *locks.Claim, id string, m meta) (*Snapshot, error) {
	m.Version, m.stamp = metaVersion, stampNow(s.boot)
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.Path, "meta.json")
	if err := os.WriteFile(file, append(b, '\n'), 0o600); err != nil {
		return nil, err
	}
	if err := s.touch(file); err != nil {
		return nil, err
	}
	for _, name := range []string{"work", "mnt"} {
		if err := descent.RemovePath(filepath.Join(c.Path, name)); err != nil {
			return nil, err
		}
	}
	if _, err := s.readMeta(id); errors.Is(err, fs.ErrNotExist) { // nobody can use what is there
		err := s.throw(s.snapshotDir(id))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := c.Become(s.snapshotDir(id)); err != nil {
		return nil, err
	}
	return s.Snapshot(id)
}

// parentID returns the ID of parent, "" of none.
func parentID(parent *Snapshot) string {
	if parent == nil {
		return ""
	}
	return parent.id
}

// below returns the layers of parent for an overlay, top first, and what overlay
// wants below them: at least one layer, two where there is no upper directory.
func (s *Store) below(parent *Snapshot, atLeast int) []string {
	var lower []string
	if parent != nil {
		lower = append(lower, parent.layers...)
	}
	for _, name := range emptyDirs {
		if len(lower) < atLeast {
			lower = append(lower, filepath.Join(s.own("empty"), name))
		}
	}
	return lower
}

// errFinished is the error of an active snapshot that has ended.
var errFinished = errors.New("snapshot is already committed or discarded")
