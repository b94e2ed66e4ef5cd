package owners_test

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/containers/storage/pkg/idtools"
	"golang.org/x/sys/unix"
)

// kinds are the files that a test goes through, by what makes one.
var kinds = map[string]func(path string) error{
	"file":      func(p string) error { return os.WriteFile(p, nil, 0o644) },
	"directory": func(p string) error { return os.Mkdir(p, 0o755) },
	"link":      func(p string) error { return os.Symlink("nowhere", p) },
	"fifo":      func(p string) error { return unix.Mkfifo(p, 0o644) },
	"socket": func(p string) error {
		l, err := net.Listen("unix", p)
		if err == nil {
			l.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:forcetypeassert // of network "unix"
			err = l.Close()
		}
		return err
	},
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// owned returns uid:gid and the mode of path, as records have it.
func owned(t *testing.T, path string) string {
	t.Helper()
	var byName, byFD unix.Stat_t
	must(t, owners.Records.Fstatat(unix.AT_FDCWD, path, &byName))
	fd := handle(t, path)
	must(t, owners.Records.Fstat(fd, &byFD))
	byName.Atim, byFD.Atim = unix.Timespec{}, unix.Timespec{}
	if byName != byFD {
		t.Errorf("%s by name is\n%+v, by descriptor\n%+v", path, byName, byFD)
	}
	return fmt.Sprintf("%d:%d %o", byName.Uid, byName.Gid, byName.Mode&0o7777)
}

// handle opens path itself, of whatever type, until the test ends.
func handle(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func want(t *testing.T, path, want string) {
	t.Helper()
	if got := owned(t, path); got != want {
		t.Errorf("%s is %s, want %s", filepath.Base(path), got, want)
	}
}

func TestOwnersStayWithTheFile(t *testing.T) {
	for kind, create := range kinds {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a")
			must(t, create(path))
			var disk unix.Stat_t
			must(t, unix.Lstat(path, &disk))
			mode := fmt.Sprintf("%o", disk.Mode&0o7777)
			want(t, path, "0:0 "+mode)

			must(t, owners.Records.Fchownat(unix.AT_FDCWD, path, 4294967294, 999_999_999))
			want(t, path, "4294967294:999999999 "+mode)
			must(t, owners.Records.Fchown(handle(t, path), 5, owners.Unchanged))
			want(t, path, "5:999999999 "+mode)
			must(t, owners.Records.Fchown(handle(t, path), owners.Unchanged, 7))
			want(t, path, "5:7 "+mode)

			must(t, os.Rename(path, path+"2"))
			path += "2"
			want(t, path, "5:7 "+mode)
			must(t, os.Mkdir(dir+"/deep", 0o755))
			must(t, os.Rename(path, dir+"/deep/b"))
			must(t, os.Rename(dir+"/deep", dir+"/other"))
			path = dir + "/other/b"
			want(t, path, "5:7 "+mode)
			if kind != "directory" {
				must(t, unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, path+"2", 0))
				want(t, path+"2", "5:7 "+mode)
				must(t, owners.Records.Fchownat(unix.AT_FDCWD, path+"2", 8, 9))
				want(t, path, "8:9 "+mode)
			}
			must(t, owners.Records.Fchownat(unix.AT_FDCWD, path, 0, 0))
			want(t, path, "0:0 "+mode)
		})
	}
}

func TestReadingALinkLeavesItsOwner(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("nowhere", link))
	must(t, owners.Records.Fchownat(unix.AT_FDCWD, link, 5, 7))
	for range 3 {
		if _, err := os.Readlink(link); err != nil {
			t.Fatal(err)
		}
	}
	mtime := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(time.Now().UnixNano())}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, link, mtime, unix.AT_SYMLINK_NOFOLLOW))
	want(t, link, "5:7 777")
}

func TestModes(t *testing.T) {
	for _, kind := range []string{"file", "directory"} {
		path := filepath.Join(t.TempDir(), "x")
		must(t, kinds[kind](path))
		for _, mode := range []uint32{0, 0o111, 0o444, 0o600, 0o755, 0o1777, 0o2755, 0o4711, 0o6000, 0o7777} {
			must(t, owners.Records.Fchmod(handle(t, path), mode))
			want(t, path, fmt.Sprintf("0:0 %o", mode))
			var disk unix.Stat_t
			must(t, unix.Lstat(path, &disk))
			let := uint32(0o600)
			if kind == "directory" {
				let = 0o700
			}
			if disk.Mode&let != let || disk.Mode&0o6000 != 0 {
				t.Errorf("%s of mode %o has %o on the disk, which keeps this process out or has set-ID bits", kind, mode, disk.Mode&0o7777)
			}
		}
		must(t, owners.Records.Fchmod(handle(t, path), 0o755))
		if n, err := unix.Lgetxattr(path, owners.Attribute, nil); !errors.Is(err, unix.ENODATA) {
			t.Errorf("%s is as on the disk, but has a record of %d bytes, %v", kind, n, err)
		}
	}
}

// TestChmodIsAChange wants another time of the last change after a chmod that changes
// nothing: programs wait for the clock of a file system that way.
func TestChmodIsAChange(t *testing.T) {
	for _, kind := range []string{"file", "directory", "fifo"} {
		dir := t.TempDir()
		path, clocked := dir+"/x", dir+"/clock"
		must(t, kinds[kind](path), os.WriteFile(clocked, nil, 0o600))
		for _, mode := range []uint32{0o644, 0o4755} {
			must(t, owners.Records.Fchmodat(unix.AT_FDCWD, path, mode))
			var before, clock, after unix.Stat_t
			must(t, unix.Lstat(path, &before))
			for clock = before; clock.Ctim.Nano() <= before.Ctim.Nano(); {
				must(t, os.Chmod(clocked, 0o600), unix.Lstat(clocked, &clock))
			}
			must(t, owners.Records.Fchmodat(unix.AT_FDCWD, path, mode), unix.Lstat(path, &after))
			if after.Ctim.Nano() <= before.Ctim.Nano() {
				t.Errorf("chmod of a %s to the same mode is no change of it", kind)
			}
			want(t, path, fmt.Sprintf("0:0 %o", mode))
		}
	}
}

func TestChmodByAnyoneElseCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, owners.Records.Fset(handle(t, path), 5, 7, 0o4555))
	want(t, path, "5:7 4555")
	must(t, os.Chmod(path, 0o640))
	want(t, path, "5:7 640")
	must(t, os.Chmod(path, 0o444))
	want(t, path, "5:7 444")
}

func TestChownTakesPrivilegesAway(t *testing.T) {
	for _, tt := range []struct {
		kind         string
		before, want uint32
	}{
		{"file", 0o6755, 0o755},
		{"file", 0o6745, 0o2745}, // without x for the group it means locking
		{"directory", 0o6755, 0o6755},
	} {
		path := filepath.Join(t.TempDir(), "x")
		must(t, kinds[tt.kind](path))
		must(t, owners.Records.Fchmodat(unix.AT_FDCWD, path, tt.before))
		if tt.kind == "file" {
			must(t, owners.Records.Fsetxattr(handle(t, path), "security.capability", capability))
		}
		must(t, owners.Records.Fchownat(unix.AT_FDCWD, path, 1, 1))
		want(t, path, fmt.Sprintf("1:1 %o", tt.want))
		if has := attributes(t, path); has["security.capability"] != "" {
			t.Errorf("after chown %s has %v", tt.kind, has)
		}
	}
}

// capability is cap_net_raw=ep.
var capability = []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// attributes returns those of path as others than the records know them.
func attributes(t *testing.T, path string) map[string]string {
	t.Helper()
	var st unix.Stat_t
	must(t, owners.Records.Fstatat(unix.AT_FDCWD, path, &st))
	b := make([]byte, 1024)
	n, err := unix.Llistxattr(path, b)
	must(t, err)
	found := map[string]string{}
	for name := range strings.SplitSeq(string(b[:n]), "\x00") {
		if called := owners.Records.Name(st.Mode, name); called != "" {
			v := make([]byte, 64)
			n, err := unix.Lgetxattr(path, name, v)
			must(t, err)
			found[called] = string(v[:n])
		}
	}
	return found
}

func TestAttributes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	must(t, os.WriteFile(path, nil, 0o644))
	must(t, owners.Records.Fset(handle(t, path), 5, 7, 0o4555))
	set := map[string]string{"security.capability": string(capability), "trusted.x": "y", "user.mine": "1"}
	for name, value := range set {
		must(t, owners.Records.Fsetxattr(handle(t, path), name, []byte(value)))
	}
	got := attributes(t, path)
	for name, value := range set {
		if got[name] != value {
			t.Errorf("%s is %q, want %q", name, got[name], value)
		}
		delete(got, name)
	}
	for name := range got {
		if strings.HasPrefix(name, "user.") {
			t.Errorf("%s is shown to others", name)
		}
	}
	link := path + "-link"
	must(t, os.Symlink("nowhere", link))
	must(t, owners.Records.Fchownat(unix.AT_FDCWD, link, 5, 7))
	if got := attributes(t, link); got["security.capability"] != "" {
		t.Errorf("the owner of a link is shown to others: %v", got)
	}
}

func TestDevices(t *testing.T) {
	for _, keeper := range []owners.Keeper{owners.Records, owners.Devices, owners.Harmless, owners.Stubs} {
		for _, tt := range []struct {
			kind uint32
			dev  uint64
		}{
			{unix.S_IFCHR, unix.Mkdev(1, 3)},
			{unix.S_IFBLK, unix.Mkdev(4095, 1<<20-1)},
			{unix.S_IFBLK, 0},
			{unix.S_IFCHR, 0},
		} {
			path := filepath.Join(t.TempDir(), "dev")
			must(t, keeper.Mknodat(unix.AT_FDCWD, path, tt.kind|0o600, tt.dev))
			if keeper == owners.Records {
				must(t, keeper.Fchownat(unix.AT_FDCWD, path, 0, 6))
				want(t, path, "0:6 600")
			}
			must(t, keeper.Fchmodat(unix.AT_FDCWD, path, 0o640))
			var st, disk unix.Stat_t
			must(t, unix.Lstat(path, &disk))
			if keeper == owners.Stubs && disk.Mode&unix.S_IFMT != unix.S_IFREG || keeper == owners.Harmless && tt.dev != unix.Mkdev(1, 3) && disk.Mode&unix.S_IFMT != unix.S_IFREG {
				t.Errorf("keeper %d makes the device %o %x as %o", keeper, tt.kind, tt.dev, disk.Mode)
			}
			if tt.dev == 0 && disk.Mode&unix.S_IFMT != tt.kind && disk.Mode&unix.S_IFMT != unix.S_IFREG {
				t.Errorf("the device %o 0 has on the disk the mode %o", tt.kind, disk.Mode)
			}
			if disk.Mode&unix.S_IFMT == unix.S_IFREG {
				// What is written is lost, as it is to the device.
				must(t, os.WriteFile(path, []byte("lost"), 0))
			}
			must(t, keeper.Fstatat(unix.AT_FDCWD, path, &st))
			if st.Mode != tt.kind|0o640 || st.Rdev != tt.dev || st.Size != 0 {
				t.Errorf("made %o %x, found %+v", tt.kind, tt.dev, st)
			}
			if err := keeper.Mknodat(unix.AT_FDCWD, path, tt.kind, tt.dev); !errors.Is(err, unix.EEXIST) {
				t.Errorf("made again: %v", err)
			}
		}
	}
	var mark unix.Stat_t
	path := filepath.Join(t.TempDir(), "dev")
	must(t, owners.Devices.Mknodat(unix.AT_FDCWD, path, unix.S_IFCHR, 0))
	must(t, unix.Lstat(path, &mark))
	if mark.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("the device 0:0 is on the disk, where it removes a name: %o", mark.Mode)
	}
}

// TestOwnersBesideDevices wants nothing of a record but the device where the kernel has the
// owners.
func TestOwnersBesideDevices(t *testing.T) {
	for record, want := range map[string]uint32{ // of a device
		"5:7:0600:char-1-3": unix.S_IFCHR | 0o640, "5:7:06755:file": unix.S_IFREG | 0o640, "5:7:0644:char-1": unix.S_IFREG | 0o640, "": unix.S_IFREG | 0o640,
	} {
		path := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(path, nil, 0o640))
		must(t, unix.Lsetxattr(path, owners.DeviceAttribute, []byte(record), 0), unix.Lsetxattr(path, owners.Attribute, []byte("8:9:0600:char-1-7"), 0))
		var disk, st unix.Stat_t
		must(t, unix.Lstat(path, &disk))
		must(t, owners.Devices.Fstatat(unix.AT_FDCWD, path, &st))
		if st.Mode != want || st.Uid != disk.Uid || st.Gid != disk.Gid {
			t.Errorf("with the record %q: mode %o of %d:%d", record, st.Mode, st.Uid, st.Gid)
		}
	}
}

func TestDamagedRecord(t *testing.T) {
	for _, value := range []string{"", "1", "1:2", "1:2:8:file", "-1:2:0644", "1:2:0644:char-1", "1:2:0644:tty-1-2", "1:2:0644:file:x", "4294967296:0:0644", strings.Repeat("1", 500)} {
		path := filepath.Join(t.TempDir(), "x")
		must(t, os.WriteFile(path, nil, 0o644))
		must(t, unix.Lsetxattr(path, owners.Attribute, []byte(value), 0))
		var st unix.Stat_t
		if err := owners.Records.Fstatat(unix.AT_FDCWD, path, &st); err == nil || !strings.Contains(err.Error(), owners.Attribute) {
			t.Errorf("record %q: %v", value, err)
		}
		if err := owners.Disk.Fstatat(unix.AT_FDCWD, path, &st); err != nil {
			t.Errorf("record %q where there are none: %v", value, err)
		}
	}
}

func TestAStrangersRecordMakesNoDirectoryADevice(t *testing.T) {
	path := t.TempDir()
	must(t, unix.Lsetxattr(path, owners.Attribute, []byte("1:2:0700:char-1-3"), 0))
	var st unix.Stat_t
	must(t, owners.Records.Fstatat(unix.AT_FDCWD, path, &st))
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("mode %o", st.Mode)
	}
}

func TestRecordsAreThoseOfContainersStorage(t *testing.T) {
	dir := t.TempDir()
	file, device := dir+"/file", dir+"/device"
	must(t, os.WriteFile(file, nil, 0o644))
	must(t, owners.Records.Fset(handle(t, file), 5, 7, 0o6551))
	must(t, owners.Records.Mknodat(unix.AT_FDCWD, device, unix.S_IFBLK|0o640, unix.Mkdev(8, 1)))
	must(t, owners.Records.Fchmodat(unix.AT_FDCWD, dir, 0o1777))
	must(t, owners.Records.Fchownat(unix.AT_FDCWD, dir, 3, 4))
	for path, want := range map[string]idtools.Stat{
		file:   {IDs: idtools.IDPair{UID: 5, GID: 7}, Mode: os.ModeSetuid | os.ModeSetgid | 0o551},
		dir:    {IDs: idtools.IDPair{UID: 3, GID: 4}, Mode: os.ModeDir | os.ModeSticky | 0o777},
		device: {Mode: os.ModeDevice | 0o640, Major: 8, Minor: 1},
	} {
		got, err := idtools.GetContainersOverrideXattr(path)
		must(t, err)
		if got != want {
			t.Errorf("%s: they read %+v, want %+v", filepath.Base(path), got, want)
		}
		b := make([]byte, 100)
		n, err := unix.Lgetxattr(path, owners.Attribute, b)
		must(t, err)
		if text := idtools.FormatContainersOverrideXattrDevice(want.IDs.UID, want.IDs.GID, want.Mode, want.Major, want.Minor); text != string(b[:n]) {
			t.Errorf("%s: %q is recorded, they would %q", filepath.Base(path), b[:n], text)
		}
	}
}

func TestOverlayKeepsRecords(t *testing.T) {
	if os.Getenv(whoVar) != "one ID" {
		t.Skip("mounts: see TestWithoutPrivilege")
	}
	dir := t.TempDir()
	for _, d := range []string{"lower", "lower/d", "upper", "work", "mnt"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	for kind, create := range kinds {
		path := filepath.Join(dir, "lower/d", kind)
		must(t, create(path))
		must(t, owners.Records.Fchownat(unix.AT_FDCWD, path, 5, 7))
	}
	options := fmt.Sprintf("userxattr,lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
	must(t, unix.Mount("overlay", dir+"/mnt", "overlay", 0, options))
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/mnt", 0)) })
	for kind := range kinds {
		path := filepath.Join(dir, "mnt/d", kind)
		before := owned(t, path)
		if !strings.HasPrefix(before, "5:7 ") {
			t.Errorf("%s through the overlay is %s", kind, before)
		}
		if kind == "directory" { // the kernel renames none from below
			must(t, os.Chmod(path, 0o750))
			want(t, filepath.Join(dir, "upper/d", kind), "5:7 750")
			continue
		}
		must(t, os.Rename(path, path+"-moved"))
		want(t, path+"-moved", before)
		want(t, filepath.Join(dir, "upper/d", kind+"-moved"), before)
		// Set through the overlay, and times with it.
		must(t, owners.Records.Fchown(handle(t, path+"-moved"), 8, 9))
		now := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path+"-moved", now, unix.AT_SYMLINK_NOFOLLOW))
		want(t, filepath.Join(dir, "upper/d", kind+"-moved"), strings.Replace(before, "5:7", "8:9", 1))
	}
}

// A link that another process puts in the place of a file leads a change nowhere.
func TestLinkInPlaceOfFile(t *testing.T) {
	dir := t.TempDir()
	victim, path, link := filepath.Join(t.TempDir(), "victim"), filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.WriteFile(victim, nil, 0o600), unix.Mkfifo(path, 0o600), os.Symlink(victim, link))
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(fd, "a", fd, "b", unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 2000 {
		must(t, owners.Records.Fchownat(fd, "a", 1, 2), owners.Records.Fchmodat(fd, "a", 0o666))
	}
	close(stop)
	<-stopped
	fi, err := os.Stat(victim)
	must(t, err)
	if fi.Mode() != 0o600 {
		t.Errorf("what the link leads to has the mode %v", fi.Mode())
	}
}

// TestFileSystemWithoutAttributes: a file system that has no extended attributes,
// or lists some and doesn't give them, is one whose files have none.
func TestFileSystemWithoutAttributes(t *testing.T) {
	t.Parallel()
	names := func(buf []byte) (int, error) { return copy(buf, "user.a\x00security.capability\x00user.b\x00"), nil }
	refuse := func(err error) func(string, []byte) (int, error) {
		return func(name string, buf []byte) (int, error) {
			if name == "user.b" {
				return copy(buf, "b"), nil
			}
			return 0, err
		}
	}
	for _, err := range []error{unix.ENOTSUP, unix.ENOSYS} {
		none := func([]byte) (int, error) { return 0, err }
		if got, failed := owners.XattrsBy(owners.Disk, none, refuse(err)); failed != nil || len(got) > 0 {
			t.Errorf("list refused with %v: %q, %v", err, got, failed)
		}
	}
	for _, err := range []error{unix.ENOTSUP, unix.ENOSYS, unix.ENODATA} {
		if got, failed := owners.XattrsBy(owners.Disk, names, refuse(err)); failed != nil || !maps.Equal(got, map[string]string{"user.b": "b"}) {
			t.Errorf("values refused with %v: %q, %v", err, got, failed)
		}
	}
	if _, failed := owners.XattrsBy(owners.Disk, names, refuse(unix.EIO)); !errors.Is(failed, unix.EIO) {
		t.Errorf("a read error is told as %v", failed)
	}
}
