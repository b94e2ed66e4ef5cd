package snapshot_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/internal/descent"
	"golang.org/x/sys/unix"
)

// dig makes depth directories called name, each in the one before, the first in dir, and
// a file in the last.
func dig(t *testing.T, dir, name string, depth int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err, unix.Close(fd))
		fd = next
	}
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	must(t, err, unix.Close(f), unix.Close(fd))
}

// fewFiles has the process open few files at once until the test ends.
func fewFiles(t *testing.T, limit uint64) {
	t.Helper()
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: was.Max}))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) })
}

// snapshotters are those that commands run with.
var snapshotters = []snapshot.Snapshotter{snapshot.Overlay, snapshot.FuseOverlay, snapshot.Copy}

// TestDeep has steps leave directories whose paths the kernel takes no more, and steps
// that lie on them. They can be measured, removed and be part of what isn't archived.
func TestDeep(t *testing.T) {
	for _, sn := range []snapshot.Snapshotter{snapshot.Overlay, snapshot.Copy} { // fuse-overlayfs makes none
		t.Run(string(sn), func(t *testing.T) {
			if err := works(t.TempDir(), sn); err != nil {
				t.Skip(err)
			}
			dir := t.TempDir()
			s := openStoreWith(t, dir, snapshot.Options{Snapshotter: sn})
			fewFiles(t, 256)
			const depth = 300 // more than files may be open, and 12,000 bytes
			name := strings.Repeat("below", 8)
			deep := layOver(t, s, nil, func(root string) { dig(t, root, name, depth) })
			top := layOver(t, s, deep, func(root string) { write(t, root+"/top", "") })
			wantNames(t, "layer over it", tarNames(t, readDiff(t, top)), "top")
			_, err := io.ReadAll(diff(t, deep))
			wantTooLong(t, "layer", err)
			v, err := s.View(t.Context(), top)
			must(t, err)
			r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: v.Root()}, nil)
			must(t, err)
			_, err = io.ReadAll(r)
			wantTooLong(t, "archive", err)
			must(t, r.Close(), v.Close())
			gone := layOver(t, s, top, func(root string) { must(t, descent.RemovePath(root+"/"+name)) })
			wantNames(t, "layer that removes it", tarNames(t, readDiff(t, gone)), ".wh."+name)
			must(t, s.Close())
			metas, err := filepath.Glob(filepath.Join(dir, "ids/*/snapshots/*/meta.json"))
			must(t, err)
			for _, meta := range metas { // what is used since a store was opened is spared
				then := time.Now().Add(-time.Hour)
				must(t, os.Chtimes(meta, then, then))
			}

			s = openStoreWith(t, dir, snapshot.Options{Snapshotter: sn})
			items, err := s.Items(t.Context())
			must(t, err)
			if len(items) != 3 {
				t.Errorf("listed %d items, want the 3 snapshots", len(items))
			}
			for _, it := range items {
				if it.ID == deep.ID() && it.Size < depth {
					t.Errorf("the deep snapshot takes %d bytes", it.Size)
				}
			}
			removed, err := s.Prune(t.Context(), snapshot.PruneOptions{})
			must(t, err)
			if len(removed) != 3 {
				t.Errorf("removed %d of 3 snapshots", len(removed))
			}
			must(t, s.Close())
			for _, place := range []string{"garbage", "active", "snapshots"} {
				left, err := filepath.Glob(filepath.Join(dir, "ids/*", place, "[^.]*"))
				must(t, err)
				if len(left) > 0 {
					t.Errorf("%s still holds %d trees", place, len(left))
				}
			}
		})
	}
}

// wantTooLong checks that err refuses a long name, and shows little of it.
func wantTooLong(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "name is longer than 4000 bytes") || len(err.Error()) > 500 {
		t.Errorf("%s: %.500v, want that a name is too long", what, err)
	}
}

// TestLongestName holds what a layer takes against what can be unpacked: all that this
// store makes it can read.
func TestLongestName(t *testing.T) {
	needMounts(t)
	element := strings.Repeat("e", 199)
	for _, tt := range []struct {
		last int // length of the last element
		fits bool
	}{{198, true}, {199, true}, {200, false}} {
		t.Run(fmt.Sprint(tt.last), func(t *testing.T) {
			s := openStore(t, t.TempDir())
			sn := layOver(t, s, nil, func(root string) { // 19*200 + 1 + last
				dir := root
				for range 19 {
					dir += "/" + element
				}
				must(t, os.MkdirAll(dir, 0o755))
				f, err := os.OpenRoot(dir)
				must(t, err)
				must(t, err, f.WriteFile("f"+strings.Repeat("f", tt.last), nil, 0o644), f.Close())
			})
			b, err := io.ReadAll(diff(t, sn))
			if !tt.fits {
				wantTooLong(t, "layer", err)
				return
			}
			must(t, err)
			if again := readDiff(t, unpack(t, s, layerOf(b, b))); !bytes.Equal(b, again) {
				t.Error("unpacked it makes another layer")
			}
		})
	}
}

// TestSocketInPlace has a step replace what is below by a socket, which no layer can
// hold: in the image the name is gone.
func TestSocketInPlace(t *testing.T) {
	for _, sn := range snapshotters {
		t.Run(string(sn), func(t *testing.T) {
			if err := works(t.TempDir(), sn); err != nil {
				t.Skip(err)
			}
			s := openStoreWith(t, t.TempDir(), snapshot.Options{Snapshotter: sn})
			base := layOver(t, s, nil, func(root string) {
				must(t, os.MkdirAll(root+"/d/dir", 0o755))
				write(t, root+"/d/file", "")
				write(t, root+"/d/dir/file", "")
				must(t, os.Symlink("file", root+"/d/link"))
			})
			top := layOver(t, s, base, func(root string) {
				for _, name := range []string{"file", "dir", "link", "new"} {
					path := filepath.Join(root, "d", name)
					must(t, os.RemoveAll(path), unix.Mknod(path, unix.S_IFSOCK|0o644, 0))
				}
				must(t, os.Mkdir(root+"/e", 0o755), unix.Mknod(root+"/e/new", unix.S_IFSOCK|0o644, 0))
			})
			wantNames(t, "layer", tarNames(t, readDiff(t, top)), "d/", "d/.wh.dir", "d/.wh.file", "d/.wh.link", "e/")
		})
	}
}

// layOver commits what change does over parent.
func layOver(t *testing.T, s *snapshot.Store, parent *snapshot.Snapshot, change func(root string)) *snapshot.Snapshot {
	t.Helper()
	a, err := s.Prepare(t.Context(), parent)
	must(t, err)
	change(a.Root())
	sn, err := a.Commit()
	must(t, err)
	return sn
}

// diff returns the layer of sn, which is closed when the test ends.
func diff(t *testing.T, sn *snapshot.Snapshot) io.Reader {
	t.Helper()
	r, err := sn.Diff(t.Context(), nil)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}
