package filecopy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot/owners"
)

// stamp is a modification time that no file gets by itself.
var stamp = time.Unix(1_234_567_890, 123_456_789)

// meta describes mode, owner and time of a file: "0644 0:0 stamp".
func meta(tb testing.TB, path string) string {
	tb.Helper()
	var st unix.Stat_t
	must(tb, unix.Lstat(path, &st))
	when := "now"
	if t := time.Unix(st.Mtim.Unix()); t.Equal(stamp) {
		when = "stamp"
	} else if time.Since(t) > time.Hour {
		when = t.String()
	}
	return fmt.Sprintf("%04o %d:%d %s", st.Mode&0o7777, st.Uid, st.Gid, when)
}

// give sets owner, mode and the stamp, children before their directory.
func give(tb testing.TB, path string, owner int, mode uint32) {
	tb.Helper()
	must(tb, os.Lchown(path, owner, owner))
	var st unix.Stat_t
	must(tb, unix.Lstat(path, &st))
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		must(tb, unix.Chmod(path, mode))
	}
	times := []unix.Timespec{unix.NsecToTimespec(stamp.UnixNano()), unix.NsecToTimespec(stamp.UnixNano())}
	must(tb, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

// metaSource is a tree whose every file says something by mode and owner.
func metaSource(t *testing.T) string {
	t.Helper()
	src := build(t, "d/f", "d/exe", "d/sub/g", "d/link -> f", "d/tmp/", "d/pipe |", "d/closed/h")
	for _, f := range []struct {
		path string
		uid  int
		mode uint32
	}{
		{"d/f", 1, 0o640},
		{"d/exe", 2, 0o6755},
		{"d/sub/g", 3, 0o000},
		{"d/sub", 3, 0o2750},
		{"d/link", 4, 0},
		{"d/tmp", 5, 0o1777},
		{"d/pipe", 6, 0o620},
		{"d/closed/h", 7, 0o400},
		{"d/closed", 7, 0o000},
		{"d", 8, 0o700},
	} {
		give(t, filepath.Join(src, f.path), f.uid, f.mode)
	}
	return src
}

// TestMetadata tables the mode, owner and time of what is copied, made and met.
func TestMetadata(t *testing.T) {
	t.Parallel()
	needRoot(t)
	tests := []struct {
		name    string
		source  string
		dest    string
		options filecopy.Options
		want    map[string]string
	}{
		{
			"kept",
			"d",
			"/p/q",
			filecopy.Options{},
			map[string]string{
				"p": "0755 0:0 now", "p/q": "0755 0:0 stamp", "p/q/f": "0640 1:1 stamp", "p/q/exe": "6755 2:2 stamp",
				"p/q/sub": "2750 3:3 stamp", "p/q/sub/g": "0000 3:3 stamp", "p/q/link": "0777 4:4 stamp",
				"p/q/tmp": "1777 5:5 stamp", "p/q/pipe": "0620 6:6 stamp", "p/q/closed": "0000 7:7 stamp", "p/q/closed/h": "0400 7:7 stamp",
			},
		},
		{
			"owner",
			"d",
			"/p/q",
			filecopy.Options{Owner: &filecopy.Owner{UID: 70, GID: 80}},
			map[string]string{
				"p": "0755 70:80 now", "p/q": "0755 70:80 stamp", "p/q/exe": "6755 70:80 stamp", "p/q/link": "0777 70:80 stamp",
				"p/q/sub": "2750 70:80 stamp", "p/q/pipe": "0620 70:80 stamp",
			},
		},
		{
			"mode",
			"d",
			"/p/q/",
			filecopy.Options{Owner: &filecopy.Owner{}, Mode: chmod(t, "4751")},
			map[string]string{
				"p": "0751 0:0 now", "p/q": "0751 0:0 stamp", "p/q/f": "4751 0:0 stamp", "p/q/sub": "4751 0:0 stamp",
				"p/q/link": "0777 0:0 stamp", "p/q/tmp": "4751 0:0 stamp",
			},
		},
		{
			"existing destination",
			"d",
			"/there",
			filecopy.Options{},
			map[string]string{
				"there": "0711 50:50 stamp", "there/sub": "2750 3:3 stamp", "there/sub/old": "0611 50:50 stamp",
				"there/sub/g": "0000 3:3 stamp", "there/f": "0640 1:1 stamp",
			},
		},
		{
			"existing destination, owner",
			"d",
			"/there/",
			filecopy.Options{Owner: &filecopy.Owner{UID: 9, GID: 9}},
			map[string]string{"there": "0711 50:50 stamp", "there/sub": "2750 9:9 stamp", "there/sub/old": "0611 50:50 stamp"},
		},
		{
			"file",
			"d/exe",
			"/there/",
			filecopy.Options{Owner: &filecopy.Owner{}},
			map[string]string{"there": "0711 50:50 now", "there/exe": "6755 0:0 stamp"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := build(t, "there/sub/old", "there/f")
			give(t, filepath.Join(root, "there/sub/old"), 50, 0o611)
			give(t, filepath.Join(root, "there/sub"), 50, 0o711)
			give(t, filepath.Join(root, "there"), 50, 0o711)
			s := pick(t, open(t, metaSource(t)), tt.source)
			must(t, s.CopyTo(t.Context(), root, tt.dest, tt.options))
			for path, want := range tt.want {
				if got := meta(t, filepath.Join(root, path)); got != want {
					t.Errorf("%s is %s, want %s", path, got, want)
				}
			}
		})
	}
}

// TestDirectoryItself checks when the destination gets the metadata of a
// directory that is copied itself: if the copy makes it, under its own name.
func TestDirectoryItself(t *testing.T) {
	t.Parallel()
	needRoot(t)
	tree := open(t, metaSource(t))
	s, err := tree.Select(t.Context(), filecopy.Source{Path: "d", Itself: true})
	must(t, err)
	for _, tt := range []struct{ dest, mode, want string }{
		{"/p/q", "", "0700 8:8 stamp"},
		{"/p/q", "u+s,go=x", "4711 8:8 stamp"},
		{"/p/q", "1700", "1700 8:8 stamp"},
		{"/p/q/", "u+s", "0755 0:0 stamp"},
		{"/there", "u+s", "0755 0:0 stamp"},
		{"/link", "", "0700 8:8 stamp"},
	} {
		root := build(t, "there/", "link -> new")
		o := filecopy.Options{}
		if tt.mode != "" {
			o.Mode = chmod(t, tt.mode)
		}
		must(t, s.CopyTo(t.Context(), root, tt.dest, o))
		made, err := filepath.EvalSymlinks(filepath.Join(root, tt.dest))
		must(t, err)
		if got := meta(t, made); got != tt.want {
			t.Errorf("--chmod=%s to %s: %s, want %s", tt.mode, tt.dest, got, tt.want)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, source, there, err string }{
		{"file on file", "x", "x=old", ""},
		{"file on link to directory", "x", "x -> .", ""},
		{"file on dangling link", "x", "x -> ../../../x", ""},
		{"file on fifo", "x", "x |", ""},
		{"link on file", "x -> y", "x=old", ""},
		{"fifo on file", "x |", "x=old", ""},
		{"file on directory", "x", "x/", "cannot replace a directory"},
		{"link on directory", "x -> y", "x/y", "cannot replace a directory"},
		{"directory on directory", "x/", "x/", ""},
		{"directory on file", "x/", "x=old", "non-directory"},
		{"directory on link to directory", "x/", "x -> .", "non-directory"},
		{"directory on fifo", "x/", "x |", "non-directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := build(t, "d/"+tt.there)
			s := pick(t, open(t, build(t, tt.source)), ".")
			err := s.CopyTo(t.Context(), root, "/d", filecopy.Options{Owner: self()})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), `"/d/x"`) {
					t.Errorf("error is %v, want %q and the path", err, tt.err)
				}
				return
			}
			must(t, err)
			want := list(t, build(t, tt.source))
			if got := list(t, filepath.Join(root, "d")); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestReplaceUnlinks checks that a file is made anew: its old hard links, be
// they in a layer below, keep their content.
func TestReplaceUnlinks(t *testing.T) {
	t.Parallel()
	root := build(t, "a=old")
	must(t, os.Link(filepath.Join(root, "a"), filepath.Join(root, "b")))
	must(t, pick(t, open(t, build(t, "a=new")), "a").CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	if got, want := list(t, root), []string{"a=new", "b=old"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHardLinks(t *testing.T) {
	t.Parallel()
	src := build(t, "a/one=data", "a/z/other", "b/")
	for _, to := range []string{"a/two", "a/z/three", "b/outside"} {
		must(t, os.Link(filepath.Join(src, "a/one"), filepath.Join(src, to)))
	}
	tree := open(t, src)
	for _, tt := range []struct {
		source string
		names  []string
		links  uint64
	}{
		{"a", []string{"one", "two", "z/three"}, 3},
		{"b", []string{"outside"}, 1},
		{"a/*o*", []string{"one"}, 1},
		{"a/*o*", []string{"two"}, 1},
	} {
		// The destination has one of the names already.
		root := build(t, "d/two=old")
		must(t, pick(t, tree, tt.source).CopyTo(t.Context(), root, "/d/", filecopy.Options{Owner: self()}))
		var inode uint64
		for _, name := range tt.names {
			var st unix.Stat_t
			must(t, unix.Lstat(filepath.Join(root, "d", name), &st))
			if st.Nlink != tt.links || inode != 0 && st.Ino != inode {
				t.Errorf("%v: %s has %d links, inode %d; want %d, inode %d", tt.source, name, st.Nlink, st.Ino, tt.links, inode)
			}
			inode = st.Ino
		}
	}
}

func TestSparse(t *testing.T) {
	t.Parallel()
	src, root := build(t, "d/"), t.TempDir()
	f, err := os.Create(filepath.Join(src, "d/holes"))
	must(t, err)
	_, err = f.WriteAt([]byte("begin"), 0)
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 512<<20)
	must(t, err)
	must(t, f.Truncate(1<<40+17))
	must(t, f.Close())
	s := pick(t, open(t, src), "d")
	must(t, s.CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	want, err := s.Digest(t.Context())
	must(t, err)
	got, err := pick(t, open(t, root), ".").Digest(t.Context())
	must(t, err)
	if got != want {
		t.Error("the copy has another content")
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(root, "holes"), &st))
	if st.Size != 1<<40+17 || st.Blocks*512 > 1<<20 {
		t.Errorf("the copy has %d bytes in %d blocks", st.Size, st.Blocks)
	}
}

// TestLargeFile copies more than a buffer, through the kernel's own copy where
// the file system has one.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789abcdef", 100_001)
	src, root := build(t, "f="+content), t.TempDir()
	must(t, pick(t, open(t, src), "f").CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	got, err := os.ReadFile(filepath.Join(root, "f"))
	must(t, err)
	if string(got) != content {
		t.Error("the copy has another content")
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	src, root := build(t, "d/f", "d/sub/"), build(t, "d/f", "d/sub/")
	set := func(p, name, value string) {
		if err := unix.Lsetxattr(filepath.Join(src, p), name, []byte(value), 0); err != nil {
			t.Skipf("set %s: %v", name, err)
		}
	}
	set("d/f", "user.note", "kept")
	set("d/f", "user.overlay.opaque", "y")
	set("d/sub", "user.dir", strings.Repeat("long", 500))
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	want := []string{"f security.capability=" + capability, "f user.note=kept", "sub user.dir=" + strings.Repeat("long", 500)}
	if os.Getuid() == 0 {
		set("d/f", "security.capability", capability)
		set("d/f", "trusted.overlay.origin", "x")
	} else {
		want = want[1:]
	}
	must(t, unix.Lsetxattr(filepath.Join(root, "d/sub"), "user.old", []byte("stays"), 0))
	want = append(want, "sub user.old=stays")
	must(t, pick(t, open(t, src), "d").CopyTo(t.Context(), root, "/d", filecopy.Options{Owner: self()}))
	var got []string
	for _, p := range []string{"f", "sub"} {
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(filepath.Join(root, "d", p), buf)
		must(t, err)
		for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			n, err := unix.Lgetxattr(filepath.Join(root, "d", p), name, value)
			must(t, err)
			if name != "security.selinux" {
				got = append(got, fmt.Sprintf("%s %s=%s", p, name, value[:n]))
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	needRoot(t)
	src, root := build(t, "d/"), t.TempDir()
	device := filepath.Join(src, "d/null")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Skipf("make device: %v", err)
	}
	tree := open(t, src)
	must(t, pick(t, tree, "d").CopyTo(t.Context(), root, "/", filecopy.Options{}))
	fi, err := os.Lstat(filepath.Join(root, "null"))
	must(t, err)
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || fi.Mode()&os.ModeCharDevice == 0 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("the copy is %v", fi.Mode())
	}
	// In overlay format the character device 0:0 would remove the name.
	must(t, unix.Mknod(filepath.Join(src, "d/gone"), unix.S_IFCHR|0o640, 0))
	must(t, pick(t, open(t, src), "d").CopyTo(t.Context(), root, "/", filecopy.Options{Owners: owners.Devices}))
	var disk, recorded unix.Stat_t
	must(t, unix.Lstat(filepath.Join(root, "gone"), &disk))
	must(t, owners.Devices.Fstatat(unix.AT_FDCWD, filepath.Join(root, "gone"), &recorded))
	if disk.Mode != unix.S_IFREG|0o640 || recorded.Mode != unix.S_IFCHR|0o640 || recorded.Rdev != 0 {
		t.Errorf("the device 0:0 is %o on the disk, and recorded as %o %d", disk.Mode, recorded.Mode, recorded.Rdev)
	}
	// Of a tree without records it is a file, of one with them a device again.
	for keeper, want := range map[owners.Keeper]uint32{owners.Disk: unix.S_IFREG, owners.Devices: unix.S_IFCHR} {
		tree, to := open(t, root), t.TempDir()
		tree.Keep(keeper)
		must(t, pick(t, tree, "gone").CopyTo(t.Context(), to, "/", filecopy.Options{Owners: owners.Devices}))
		must(t, owners.Devices.Fstatat(unix.AT_FDCWD, to+"/gone", &recorded))
		if recorded.Mode&unix.S_IFMT != want {
			t.Errorf("the copy of a recorded device has the mode %o, want the type %o", recorded.Mode, want)
		}
	}
}

// TestUnreadableFifo checks that no source is waited for: nothing writes to the
// fifos, and one takes the place of a file after the selection.
func TestUnreadableFifo(t *testing.T) {
	t.Parallel()
	src := build(t, "d/p |", "d/f")
	tree := open(t, src)
	s := pick(t, tree, "d")
	_, err := s.Digest(t.Context())
	must(t, err)
	must(t, os.Remove(filepath.Join(src, "d/f")))
	must(t, unix.Mkfifo(filepath.Join(src, "d/f"), 0o644))
	expectChanged(t, s, "d/f")
	root := t.TempDir()
	must(t, pick(t, tree, "d/p").CopyTo(t.Context(), root, "/q", filecopy.Options{Owner: self()}))
	if got := list(t, root); !slices.Equal(got, []string{"q |"}) {
		t.Errorf("got %q", got)
	}
}
