package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/locks"

	"golang.org/x/sys/unix"
)

// An ItemKind says what an [Item] is.
type ItemKind string

// The kinds of items.
const (
	ItemSnapshot   ItemKind = "snapshot"
	ItemBlob       ItemKind = "blob"
	ItemRecord     ItemKind = "record"
	ItemCacheMount ItemKind = "cache-mount"
)

// An Item is one thing that the store keeps for later builds.
type Item struct {
	Kind ItemKind
	// ID is that of a snapshot, the digest of a blob, kind/digest of a record, and
	// key/number of a cache mount's directory.
	ID string
	// Parent is the snapshot that a snapshot lies on, "" for others.
	Parent string
	// Size is the space on the disk, in bytes. A file with several names in one
	// snapshot counts once.
	Size int64
	// Used is when it was last used.
	Used time.Time
	// InUse says that a living process may use it, so that Prune spares it.
	InUse bool

	path   string    // that is renamed away to remove it
	mark   string    // the file that carries the time of last use
	marked time.Time // what that was
	depth  int       // how many snapshots it lies on
	lost   bool      // nobody finds it any more: see Store.holds
}

// Items lists all that the store keeps for this ID mapping, in no order. What
// other processes remove meanwhile is left out.
func (s *Store) Items(ctx context.Context) ([]Item, error) {
	items, err := s.items(ctx, true)
	if err != nil {
		return nil, fmt.Errorf("list store %s: %w", s.dir, err)
	}
	return items, nil
}

// items is Items. Cache mounts, which change, are measured anew only if exact is
// set; otherwise they have the size that they had when they were last measured.
func (s *Store) items(ctx context.Context, exact bool) ([]Item, error) {
	oldest, alone, err := s.oldestUser()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if s.opened.After(now) { // the clock was set back meanwhile
		alone = false
	}
	var items []Item
	for _, list := range []func(func(Item)) error{
		func(add func(Item)) error { return s.listSnapshots(ctx, add) },
		func(add func(Item)) error { return s.listCacheMounts(ctx, exact, add) },
		s.listBlobs,
		s.listRecords,
	} {
		if err := list(func(i Item) { items = append(items, i) }); err != nil {
			return nil, err
		}
	}
	snapshots := make(map[string]int, len(items)) // by ID
	for i, it := range items {
		it.marked = it.Used
		if it.Used.After(now) && alone { // the clock was wrong then
			it.Used = now
		} else if !it.Used.Before(oldest) {
			it.InUse = true
		}
		items[i] = it
		if it.Kind == ItemSnapshot {
			snapshots[it.ID] = i
		}
	}
	for i := range items {
		for at := i; ; {
			below, found := snapshots[items[at].Parent]
			if !found || items[i].depth > len(items) {
				break
			}
			items[i].depth++
			items[below].support(items[at])
			at = below
		}
	}
	return items, nil
}

// support has it count as used whenever above is, which lies on it.
func (it *Item) support(above Item) {
	if it.Used.Before(above.Used) {
		it.Used = above.Used
	}
	it.InUse = it.InUse || above.InUse
}

// listSnapshots lists the snapshots of this ID mapping.
func (s *Store) listSnapshots(ctx context.Context, add func(Item)) error {
	return eachEntry(s.own("snapshots"), func(e fs.DirEntry) error {
		path := s.snapshotDir(e.Name())
		it := Item{Kind: ItemSnapshot, ID: e.Name(), path: path, mark: filepath.Join(path, "meta.json")}
		err := it.readMark()
		if err != nil {
			return err
		}
		m, err := s.readMeta(it.ID) // one that can't be read lies on nothing
		it.lost = errors.Is(err, fs.ErrNotExist)
		it.Parent = m.Parent
		if it.Size, err = s.treeSize(ctx, path, false); err != nil {
			return err
		}
		add(it)
		return nil
	})
}

// sizeName is the file beside a tree that remembers its size in bytes.
const sizeName = "size"

// treeSize returns the space that the tree in dir takes, or took when it was last
// measured if it need not be exact. Of a tree that can't be read whole it is what the
// rest takes: nothing in a tree may keep it from being listed, and so removed. Only the
// end of ctx is an error.
func (s *Store) treeSize(ctx context.Context, dir string, exact bool) (int64, error) {
	file := filepath.Join(dir, sizeName)
	if b, err := os.ReadFile(file); err == nil && !exact {
		if n, err := strconv.ParseInt(string(b), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	n, err := diskUsage(ctx, dir)
	if err == nil {
		_ = s.writeFile(file, strconv.AppendInt(nil, n, 10)) // else it is measured again
	}
	return n, context.Cause(ctx)
}

// diskUsage returns the space that the tree at dir takes, in bytes, also with an error:
// as far as it came.
func diskUsage(ctx context.Context, dir string) (int64, error) {
	root, err := unix.Open(dir, file.Directory, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, &os.PathError{Op: "fstat", Path: dir, Err: err}
	}
	n := st.Blocks * 512
	seen := make(map[file.Inode]bool) // files with several names
	err = descent.Walk(ctx, root, func(_ int, _ string, st *unix.Stat_t) error {
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			key := file.InodeOf(st)
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		n += st.Blocks * 512
		return nil
	})
	return n, err
}

func (s *Store) listBlobs(add func(Item)) error {
	return eachEntry(s.blobDir(), func(e fs.DirEntry) error {
		path := filepath.Join(s.blobDir(), e.Name())
		return addFile(add, Item{Kind: ItemBlob, ID: "sha256:" + e.Name(), path: path, mark: path})
	})
}

func (s *Store) listRecords(add func(Item)) error {
	return eachEntry(s.path("records"), func(kind fs.DirEntry) error {
		return eachEntry(filepath.Join(s.path("records"), kind.Name()), func(algorithm fs.DirEntry) error {
			dir := filepath.Join(s.path("records"), kind.Name(), algorithm.Name())
			return eachEntry(dir, func(e fs.DirEntry) error {
				path := filepath.Join(dir, e.Name())
				id := kind.Name() + "/" + algorithm.Name() + ":" + e.Name()
				return addFile(add, Item{Kind: ItemRecord, ID: id, path: path, mark: path})
			})
		})
	})
}

// addFile adds it, which is the file at its path.
func addFile(add func(Item), it Item) error {
	var st unix.Stat_t
	if err := unix.Lstat(it.path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: it.path, Err: err}
	}
	it.Size, it.Used = st.Blocks*512, time.Unix(st.Mtim.Unix())
	add(it)
	return nil
}

func (s *Store) listCacheMounts(ctx context.Context, exact bool, add func(Item)) error {
	return eachEntry(s.own("caches"), func(key fs.DirEntry) error {
		dir := filepath.Join(s.own("caches"), key.Name())
		return eachEntry(dir, func(n fs.DirEntry) error {
			path := filepath.Join(dir, n.Name())
			it := Item{Kind: ItemCacheMount, ID: key.Name() + "/" + n.Name(), path: path, mark: filepath.Join(path, locks.Name)}
			if err := it.readMark(); err != nil {
				return err
			}
			it.lost = !s.intact(path)
			lock, err := lockCacheInstance(path, Locked)
			if err != nil {
				return err
			}
			if it.InUse = lock == nil; lock != nil {
				defer lock.Close()
			}
			if it.Size, err = s.treeSize(ctx, path, exact); err != nil {
				return err
			}
			add(it)
			return nil
		})
	})
}

// eachEntry calls f for the entries of dir, hidden ones left out. A directory that
// isn't there has none, and an entry that has gone meanwhile is passed over.
func eachEntry(dir string, f func(fs.DirEntry) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := f(e); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// readMark sets Used. A directory that has lost the file of its mark counts itself.
func (it *Item) readMark() (err error) {
	it.Used, err = modTime(it.mark)
	if errors.Is(err, fs.ErrNotExist) {
		it.mark = it.path
		it.Used, err = modTime(it.mark)
	}
	return err
}

func modTime(path string) (time.Time, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	return fi.ModTime(), nil
}
