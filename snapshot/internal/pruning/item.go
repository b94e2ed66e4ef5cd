package pruning

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"golang.org/x/sys/unix"
)

// A Kind says what an [Item] is.
type Kind string

// The kinds of items.
const (
	Snapshot   Kind = "snapshot"
	Blob       Kind = "blob"
	Record     Kind = "record"
	CacheMount Kind = "cache-mount"
)

// An Item is one thing that the store keeps for later builds.
type Item struct {
	Kind Kind
	// ID is the ID of a snapshot, the digest of a blob, the kind/digest of a record or the
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
}

// An Entry is an item, and how it can be removed.
type Entry struct {
	Item

	Path string // renamed away to remove it
	Mark string // the file that carries the time of last use
	Lost bool   // nobody finds it any more, since a power failure may have damaged it

	keeper Keeper
	marked time.Time // the time that Mark carried
	depth  int       // how many snapshots it lies on
}

// A Keeper keeps things of one kind.
type Keeper interface {
	// List calls add for each of them. A directory that changes is measured anew if exact
	// is set.
	List(ctx context.Context, exact bool, add func(Entry)) error
	// Remove removes one unless it has been used since it was listed. It reports whether
	// it did.
	Remove(e Entry) (gone bool, err error)
}

// Directory returns the entry for the item that is the directory at path. The time of last
// use is carried by the file mark in it. A directory that has lost that file carries it
// itself.
func Directory(it Item, path, mark string) (Entry, error) {
	e := Entry{Item: it, Path: path, Mark: filepath.Join(path, mark)}
	fi, err := os.Lstat(e.Mark)
	if errors.Is(err, fs.ErrNotExist) {
		e.Mark = path
		fi, err = os.Lstat(path)
	}
	if err != nil {
		return Entry{}, err
	}
	e.Used = fi.ModTime()
	return e, nil
}

// Throw puts e into the bin unless it has been used since it was listed.
func (e Entry) Throw(u *usage.Usage, bin *trash.Bin) (gone bool, err error) {
	lock, err := u.Exclude()
	if err != nil {
		return false, err
	}
	defer lock.Close()
	fi, err := os.Lstat(e.Mark)
	if err == nil && fi.ModTime().Equal(e.marked) {
		err = bin.Throw(e.Path)
		gone = err == nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another process was faster
	}
	return gone, err
}

// sizeName is the file beside a tree that remembers its size in bytes.
const sizeName = "size"

// TreeSize returns the space that the tree in dir takes, or took when it was last
// measured if it need not be exact. Of a tree that can't be read whole it is what the
// rest takes: nothing in a tree may keep it from being listed, and so removed. Only the
// end of ctx is an error.
func TreeSize(ctx context.Context, u *usage.Usage, dir string, exact bool) (int64, error) {
	file := filepath.Join(dir, sizeName)
	if b, err := os.ReadFile(file); err == nil && !exact {
		if n, err := strconv.ParseInt(string(b), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	n, err := diskUsage(ctx, dir)
	if err == nil {
		_ = u.WriteFile(file, strconv.AppendInt(nil, n, 10)) // else it is measured again
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

// AddFile calls add for the item that is the file at path, which carries the time of its
// last use itself.
func AddFile(add func(Entry), it Item, path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	it.Size, it.Used = st.Blocks*512, time.Unix(st.Mtim.Unix())
	add(Entry{Item: it, Path: path, Mark: path})
	return nil
}

// EachFile calls f for the entries of dir, hidden ones left out. A directory that
// isn't there counts as empty, and an entry that goes meanwhile is passed over.
func EachFile(dir string, f func(fs.DirEntry) error) error {
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
