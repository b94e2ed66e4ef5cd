package descent_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// open opens a directory until the test ends.
func open(t *testing.T, dir string) int {
	t.Helper()
	f, err := os.Open(dir)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return int(f.Fd())
}

// openFiles returns how many files the process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

const depth = 400

// dig makes depth directories below dir, each in the one before, with a file in each.
func dig(t *testing.T, dir, name string) {
	t.Helper()
	p := descent.From(open(t, dir))
	defer p.Close()
	for range depth {
		must(t, unix.Mkdirat(p.FD(), name, 0o755), p.Down(name))
		fd, err := unix.Openat(p.FD(), "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		must(t, err)
		_, err = unix.Write(fd, []byte("content"))
		must(t, err, unix.Close(fd))
	}
}

func TestPath(t *testing.T) {
	dir, name := t.TempDir(), strings.Repeat("n", 100)
	dig(t, dir, name)
	before := openFiles(t)
	p := descent.From(open(t, dir))
	for range depth {
		must(t, p.Down(name))
	}
	if n := openFiles(t) - before; n > 50 {
		t.Errorf("%d files are open", n)
	}
	whole := p.Join("file")
	if want := strings.Repeat(name+"/", depth) + "file"; whole != want {
		t.Errorf("path is %d bytes long, want %d", len(whole), len(want))
	}
	for range depth {
		must(t, p.Up())
	}
	var root, now unix.Stat_t
	must(t, unix.Stat(dir, &root), unix.Fstat(p.FD(), &now))
	if root.Ino != now.Ino {
		t.Error("the way back leads elsewhere")
	}
	f, err := descent.OpenFile(filepath.Join(dir, whole))
	must(t, err)
	if b, err := io.ReadAll(f); string(b) != "content" {
		t.Errorf("file holds %q, %v", b, err)
	}
	must(t, f.Close())
	p.Close()
	if n := openFiles(t) - before; n > 1 {
		t.Errorf("%d files stay open", n)
	}
}

// TestMoved moves a directory out of the tree while a path ends far below it: the way
// back must not lead to where it is now.
func TestMoved(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	dig(t, dir, "n")
	p := descent.From(open(t, dir))
	defer p.Close()
	for range depth {
		must(t, p.Down("n"))
	}
	must(t, os.Rename(dir+"/n/n/n", elsewhere+"/n"))
	var err error
	for range depth {
		if err = p.Up(); err != nil {
			break
		}
	}
	if !errors.Is(err, descent.ErrMoved) {
		t.Errorf("came back: %v", err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/a/b", 0o755), os.Symlink("/", dir+"/a/link"), os.WriteFile(dir+"/outside", nil, 0o600), os.Symlink("../../outside", dir+"/a/b/link"))
	root := open(t, dir)
	var seen []string
	must(t, descent.Walk(t.Context(), root, func(_ int, name string, st *unix.Stat_t) error {
		seen = append(seen, fmt.Sprintf("%s %o", name, st.Mode&unix.S_IFMT>>12))
		return nil
	}))
	if len(seen) != 5 {
		t.Errorf("saw %q", seen)
	}
	must(t, descent.Remove(root, "a"), descent.Remove(root, "a"))
	if _, err := os.Stat(dir + "/outside"); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	must(t, err)
	if len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

// TestRest checks that what can't be read or removed keeps nothing else from it.
func TestRest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("wants to mount")
	}
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.MkdirAll(dir+"/top/"+name+"/d", 0o755), os.WriteFile(dir+"/top/"+name+"/d/file", nil, 0o600))
	}
	busy := dir + "/top/b/d"
	if err := unix.Mount(busy, busy, "", unix.MS_BIND, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(busy, unix.MNT_DETACH)) })
	if err := descent.RemovePath(dir + "/top"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("removed a mount point: %v", err)
	}
	left, err := os.ReadDir(dir + "/top")
	must(t, err)
	if len(left) != 1 || left[0].Name() != "b" {
		t.Errorf("left are %v", left)
	}
}
