package snapshot_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

// baseLayers is what the round trips change.
func baseLayers(t testing.TB) []snapshot.Layer {
	t.Helper()
	suid := file("bin/su", "su").with(func(h *tar.Header) { h.Mode = 0o4755 })
	ping := file("bin/ping", "ping").with(func(h *tar.Header) {
		h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	})
	return []snapshot.Layer{
		layer(t,
			folder("./"), folder("bin/"), file("bin/sh", "shell"), suid, ping, hardlink("bin/bash", "bin/sh"),
			folder("d/"), file("d/a", "a"), file("d/b", "b"), folder("d/sub/"), file("d/sub/c", "c"),
			folder("e/"), file("e/x", "x"), symlink("link", "d"), file("f", "file f"),
			folder("tmp/").with(func(h *tar.Header) { h.Mode = 0o1777 }),
			folder("home/").with(func(h *tar.Header) { h.Uid, h.Gid = 1000, 1001 }),
			file("home/mine", "mine").with(func(h *tar.Header) { h.Uid, h.Gid = 1000, 1001 }),
		),
		layer(t, folder("d/"), file("d/b", "b2"), file("d/.wh.a", ""), folder("g/"), file("g/y", "y")),
	}
}

// edit is a change to a mounted tree and the names of the layer that it makes.
type edit struct {
	name string
	do   func(t *testing.T, root string)
	want []string
}

func write(t testing.TB, path, body string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(body), 0o644))
}

var edits = []edit{
	{"nothing", func(*testing.T, string) {}, nil},
	{"read only", func(t *testing.T, root string) {
		_, err := os.ReadFile(filepath.Join(root, "d/b"))
		must(t, err)
	}, nil},
	{"chmod to the same", func(t *testing.T, root string) {
		must(t, os.Chmod(filepath.Join(root, "d/sub"), 0o755))
	}, nil},
	{"new file", func(t *testing.T, root string) { write(t, root+"/d/new", "n") }, []string{"d/", "d/new"}},
	{"change file", func(t *testing.T, root string) { write(t, root+"/d/b", "changed") }, []string{"d/", "d/b"}},
	{"change deep file", func(t *testing.T, root string) { write(t, root+"/d/sub/c", "changed") }, []string{"d/", "d/sub/", "d/sub/c"}},
	{"remove file", func(t *testing.T, root string) { must(t, os.Remove(root+"/d/b")) }, []string{"d/", "d/.wh.b"}},
	{"remove directory", func(t *testing.T, root string) { must(t, os.RemoveAll(root+"/d")) }, []string{".wh.d"}},
	{"remove and make directory", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d"), os.Mkdir(root+"/d", 0o700))
	}, []string{"d/", "d/.wh..wh..opq"}},
	{"remove and make directory with content", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d"), os.MkdirAll(root+"/d/sub/deeper", 0o700))
		write(t, root+"/d/sub/z", "z")
	}, []string{"d/", "d/.wh..wh..opq", "d/sub/", "d/sub/deeper/", "d/sub/z"}},
	{"add and remove", func(t *testing.T, root string) {
		write(t, root+"/e/new", "n")
		must(t, os.Remove(root+"/e/new"), os.Chtimes(root+"/e", someTime, someTime))
	}, nil},
	{"new directories", func(t *testing.T, root string) {
		must(t, os.MkdirAll(root+"/n/m", 0o755))
		write(t, root+"/n/m/o", "o")
	}, []string{"n/", "n/m/", "n/m/o"}},
	{"move directory", func(t *testing.T, root string) {
		out, err := exec.Command("mv", root+"/d", root+"/moved").CombinedOutput()
		if err != nil {
			t.Fatalf("mv: %v: %s", err, out)
		}
	}, []string{".wh.d", "moved/", "moved/b", "moved/sub/", "moved/sub/c"}},
	{"move new directory over removed one", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d"), os.Mkdir(root+"/n", 0o755))
		write(t, root+"/n/k", "k")
		must(t, os.Rename(root+"/n", root+"/d"))
	}, []string{"d/", "d/.wh..wh..opq", "d/k"}},
	{"file to directory", func(t *testing.T, root string) {
		must(t, os.Remove(root+"/f"), os.Mkdir(root+"/f", 0o755))
		write(t, root+"/f/in", "in")
	}, []string{"f/", "f/in"}},
	{"directory to file", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d"))
		write(t, root+"/d", "file now")
	}, []string{"d"}},
	{"directory to symlink", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d"), os.Symlink("e", root+"/d"))
	}, []string{"d -> e"}},
	{"symlink to directory", func(t *testing.T, root string) {
		must(t, os.Remove(root+"/link"), os.Mkdir(root+"/link", 0o755))
		write(t, root+"/link/in", "in")
	}, []string{"link/", "link/in"}},
	{"file to directory to symlink", func(t *testing.T, root string) {
		must(t, os.Remove(root+"/f"), os.Mkdir(root+"/f", 0o755), os.Remove(root+"/f"), os.Symlink("/nowhere", root+"/f"))
	}, []string{"f -> /nowhere"}},
	{"link to lower file", func(t *testing.T, root string) {
		must(t, os.Link(root+"/f", root+"/d/f2"))
	}, []string{"d/", "d/f2", "f -> d/f2"}},
	{"new hard links", func(t *testing.T, root string) {
		write(t, root+"/z1", "zz")
		must(t, os.Link(root+"/z1", root+"/z0"), os.Link(root+"/z1", root+"/e/z2"))
	}, []string{"e/", "e/z2", "z0 -> e/z2", "z1 -> e/z2"}},
	{"chmod directory", func(t *testing.T, root string) {
		must(t, os.Chmod(root+"/d", 0o711))
	}, []string{"d/"}},
	{"owner and set-ID bits", func(t *testing.T, root string) {
		must(t, os.Chown(root+"/f", 5, 65536), unix.Chmod(root+"/f", 0o6711), unix.Chmod(root+"/e", 0o3775))
	}, []string{"e/", "f"}},
	{"file capability", func(t *testing.T, root string) {
		must(t, unix.Setxattr(root+"/bin/sh", "security.capability", []byte(capability), 0))
	}, []string{"bin/", "bin/sh"}},
	{"fifo and socket", func(t *testing.T, root string) {
		must(t, unix.Mkfifo(root+"/pipe", 0o600))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, err)
		defer unix.Close(fd)
		dir, err := os.Open(root)
		must(t, err)
		defer dir.Close()
		must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd())}))
	}, []string{"pipe"}},
	{"names", func(t *testing.T, root string) {
		must(t, os.Mkdir(root+"/"+strings.Repeat("long", 60), 0o755))
		write(t, root+"/"+strings.Repeat("long", 60)+"/"+strings.Repeat("n", 255), "")
		write(t, root+"/caf\xe9 \n\"", "latin 1")
		write(t, root+"/é", "utf-8")
	}, []string{"caf\xe9 \n\"", strings.Repeat("long", 60) + "/", strings.Repeat("long", 60) + "/" + strings.Repeat("n", 255), "é"}},
	{"times", func(t *testing.T, root string) {
		at := time.Unix(-5, 7)
		must(t, os.Chtimes(root+"/f", at, at), os.Chtimes(root+"/e", at, at))
	}, []string{"e/", "f"}},
	{"sparse file", func(t *testing.T, root string) {
		f, err := os.Create(root + "/sparse")
		must(t, err)
		_, err = f.WriteAt([]byte("middle"), 3<<20)
		must(t, err, f.Truncate(5<<20+17), f.Close())
	}, []string{"sparse"}},
	{"many removals in a removed place", func(t *testing.T, root string) {
		must(t, os.RemoveAll(root+"/d/sub"), os.Remove(root+"/d/b"), os.RemoveAll(root+"/e"), os.RemoveAll(root+"/bin"))
	}, []string{".wh.bin", "d/", "d/.wh.b", "d/.wh.sub", ".wh.e"}},
}

// TestRoundTrip changes a mounted snapshot, and compares it with what its diff
// makes of the parent when it is unpacked as a layer, and when another
// implementation applies it to a plain directory.
func TestRoundTrip(t *testing.T) {
	needMounts(t)
	for _, with := range []snapshot.Snapshotter{snapshot.Overlay, snapshot.Copy} {
		s := openStoreWith(t, t.TempDir(), snapshot.Options{Snapshotter: with})
		layers := baseLayers(t)
		base := unpack(t, s, layers...)
		for _, e := range edits {
			if with == snapshot.Copy && e.name == "file capability" { // of a file with two names, which it keeps
				e.want = []string{"bin/", "bin/bash", "bin/sh -> bin/bash"}
			}
			t.Run(string(with)+"/"+e.name, func(t *testing.T) { roundTrip(t, s, base, layers, e) })
		}
	}
}

func roundTrip(t *testing.T, s *snapshot.Store, base *snapshot.Snapshot, layers []snapshot.Layer, e edit) {
	t.Helper()
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	e.do(t, a.Root())
	mounted := list(t, a.Root())
	sn, err := a.Commit()
	must(t, err)
	changed := viewed(t, s, sn)
	// While it is mounted, an overlay may show the names of a file that was
	// copied up as different ones.
	sameTree(t, "committed", withoutLinks(changed), withoutLinks(mounted))
	diff := readDiff(t, sn)
	wantNames(t, "diff", tarNames(t, diff), e.want...)
	if again := readDiff(t, sn); !bytes.Equal(diff, again) {
		t.Error("second diff has other bytes")
	}
	if len(e.want) == 0 && !bytes.Equal(diff, make([]byte, 1024)) {
		t.Errorf("diff of nothing has %d bytes", len(diff))
	}
	changed = slices.DeleteFunc(changed, func(l string) bool { return strings.HasPrefix(l, `"sock"`) })
	want := withoutRootTime(changed)
	other := openStore(t, t.TempDir())
	again := unpack(t, other, append(slices.Clone(layers), layerOf(diff, diff))...)
	sameTree(t, "unpacked", withoutRootTime(viewed(t, other, again)), want)
	if e.name != "names" && e.name != "times" { // which that implementation doesn't keep
		sameTree(t, "applied", withoutRootTime(applied(t, s, base, diff)), want)
	}
}

// withoutRootTime drops the root's line, whose time a layer doesn't hold.
func withoutRootTime(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(l string) bool { return strings.HasPrefix(l, `"."`) })
}

func withoutLinks(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(l string) bool { return strings.HasPrefix(l, "[") })
}

// applied returns the tree that containers/storage makes of base and the diff.
func applied(t *testing.T, s *snapshot.Store, base *snapshot.Snapshot, diff []byte) []string {
	t.Helper()
	v, err := s.View(t.Context(), base)
	must(t, err)
	dir := t.TempDir()
	out, err := exec.Command("cp", "-a", v.Root()+"/.", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	must(t, v.Close())
	_, err = archive.UnpackLayer(dir, bytes.NewReader(diff), &archive.TarOptions{})
	must(t, err)
	return list(t, dir)
}
