package snapshot_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Processes that the kernel refuses something, by what modeVar is for them: with one user
// and one group ID the root of a user namespace and anybody in none; and the root of one
// with many IDs, who makes no devices.
var refusedSome = map[string]*syscall.SysProcAttr{
	"one": {
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: oneID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: oneID, Size: 1}},
		Credential:  &syscall.Credential{},
	},
	"none": {Credential: &syscall.Credential{Uid: oneID, Gid: oneID}},
	"many": {
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: oneID, Size: 1<<31 + 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: oneID, Size: 1<<31 + 1}},
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{},
	},
}

const oneID = 1<<30 + 9

// TestRecordedOwnersMakeTheSameTars makes snapshots as root, which gives files away and
// makes devices, and as those who can only record that, and wants the same tars of them.
func TestRecordedOwnersMakeTheSameTars(t *testing.T) {
	if os.Getenv(modeVar) != "root" {
		t.Skip("wants to be root outside of a user namespace")
	}
	all := diffs(t, snapshot.Options{}, true)
	for mode, attr := range refusedSome {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.count=1", "-test.run=TestTarsOfRecordedOwners$", "-test.v")
			cmd.Env = append(os.Environ(), modeVar+"="+mode, "TMPDIR=/tmp", "HOME=/")
			cmd.SysProcAttr = attr
			out, err := cmd.CombinedOutput()
			if errors.Is(err, syscall.EPERM) {
				t.Skip("not allowed here:", err)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			_, got, _ := strings.Cut(string(out), begin)
			got, _, _ = strings.Cut(got, end)
			want := all
			if mode == "none" {
				want, _, _ = strings.Cut(all, mounted)
			}
			if got != want {
				t.Errorf("recorded owners make\n%s\nreal ones\n%s", got, want)
			}
		})
	}
}

const begin, end, mounted = "BEGIN\n", "END\n", "MOUNTED\n"

func TestTarsOfRecordedOwners(t *testing.T) {
	mode := os.Getenv(modeVar)
	if refusedSome[mode] == nil {
		t.Skip("is for TestRecordedOwnersMakeTheSameTars")
	}
	fmt.Print(begin + diffs(t, snapshot.Options{RecordOwners: mode != "many"}, mode != "none") + end)
}

// owned returns a change of an entry's owner and mode.
func owned(uid, gid int, mode int64) func(*tar.Header) {
	return func(h *tar.Header) { h.Uid, h.Gid, h.Mode = uid, gid, mode }
}

func capable(h *tar.Header) {
	h.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability":           "\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.trusted.x":                     "y",
		"SCHILY.xattr.user.containers.override_stat": "66:66:0666:file", // of a stranger
		"SCHILY.xattr.user.bob.security.capability":  "x",
	}
}

// diffs describes the tars of snapshots made of layers and, with mounts, of what is
// done to them.
func diffs(t *testing.T, o snapshot.Options, mounts bool) string {
	t.Helper()
	dir := t.TempDir()
	s, err := snapshot.Open(dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	layers := []snapshot.Layer{
		layer(t,
			folder("etc").with(owned(0, 0, 0o755)),
			file("etc/shadow", "secret").with(owned(0, 42, 0)),
			file("etc/sudo", "s").with(owned(0, 0, 0o4555)),
			file("etc/mail", "m").with(owned(8, 12, 0o2755)),
			file("etc/read", "r").with(owned(1000, 1000, 0o444)),
			file("etc/ping", "p").with(owned(0, 0, 0o755)).with(capable),
			folder("closed").with(owned(33, 33, 0)),
			file("closed/in", "1").with(owned(33, 33, 0o100)),
			folder("tmp").with(owned(0, 0, 0o1777)),
			folder("group").with(owned(0, 50, 0o2775)),
			symlink("etc/link", "shadow").with(owned(1000, 1001, 0o777)),
			symlink("etc/root-link", "shadow"),
			hardlink("etc/shadow2", "etc/shadow").with(owned(0, 42, 0)),
			hardlink("etc/link2", "etc/link"),
			entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o620, Uid: 3, Gid: 4, ModTime: someTime}},
			device("null", tar.TypeChar, 1, 3).with(owned(0, 6, 0o666)),
			device("disk", tar.TypeBlock, 8, 0).with(owned(5, 6, 0o4640)),
			folder("dev").with(owned(0, 0, 0o755)),
			device("dev/null", tar.TypeChar, 1, 3).with(owned(0, 0, 0o666)),
			device("dev/removed", tar.TypeChar, 1, 3), hardlink("dev/link", "dev/null"),
			device("zero", tar.TypeChar, 0, 0).with(owned(7, 8, 0o640)), device("zero-block", tar.TypeBlock, 0, 0),
			file("over", "not removed by the device 0:0"),
			file("gone/a", "1"), file("gone/b", "1").with(owned(9, 9, 0o600)),
			folder("hidden").with(owned(9, 9, 0o700)), file("hidden/a", "1"),
		),
		layer(t,
			file("etc/.wh.read", ""), file("gone/.wh.a", ""), file("hidden/.wh..wh..opq", ""), file("closed/more", "2").with(owned(1, 1, 0o7777)),
			device("over", tar.TypeChar, 0, 0), hardlink("zero2", "zero"), file("dev/.wh.removed", ""), folder("not/a"), device("not/a/mark", tar.TypeChar, 0, 0),
			file("hidden/b", "2"), hardlink("again", "etc/mail"), hardlink("null2", "null"), file("tmp/x", "").with(owned(1<<31, 1<<29, 0o40)),
		),
	}
	var b strings.Builder
	for n := range layers {
		sn := unpack(t, s, layers[:n+1]...)
		describe(t, &b, fmt.Sprint("layer ", n), readDiff(t, sn))
	}
	if !mounts {
		return b.String()
	}
	b.WriteString(mounted)
	base := unpack(t, s, layers...)
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	command(t, a.Root(), s.Owners())
	archive := makeTar(t, file("x", "1").with(owned(7, 8, 0o4000)), folder("y").with(owned(7, 8, 0)), symlink("y/z", "x").with(owned(7, 8, 0o777)))
	must(t, snapshot.Extract(t.Context(), a.Root(), "/archive", bytes.NewReader(archive), snapshot.ExtractOptions{Owners: s.Owners()}))
	must(t, snapshot.Extract(t.Context(), a.Root(), "/given", bytes.NewReader(archive),
		snapshot.ExtractOptions{Owners: s.Owners(), Owner: &snapshot.Owner{UID: 11, GID: 12}}))
	for _, name := range []string{"archive", "given"} { // made just now
		must(t, os.Chtimes(filepath.Join(a.Root(), name), time.Time{}, time.Unix(1e9, 0)))
	}
	sn, err := a.Commit()
	must(t, err)
	describe(t, &b, "step", readDiff(t, sn))

	v, err := s.View(t.Context(), sn)
	must(t, err)
	at := time.Unix(1e9, 0)
	r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: v.Root(), Owners: s.Owners()}, &at)
	must(t, err)
	whole, err := io.ReadAll(r)
	must(t, err, r.Close(), v.Close())
	describe(t, &b, "whole", whole)
	return b.String()
}

// command does below root what commands do.
func command(t *testing.T, root string, k owners.Keeper) {
	t.Helper()
	in := func(name string) string { return filepath.Join(root, name) }
	must(t,
		os.Rename(in("etc/link"), in("moved-link")),
		os.Rename(in("etc/mail"), in("moved-mail")),
		os.Rename(in("fifo"), in("moved-fifo")),
		os.Mkdir(in("new"), 0o755),
		os.WriteFile(in("new/file"), []byte("n"), 0o640),
		os.Symlink("file", in("new/link")),
		k.Fchownat(unix.AT_FDCWD, in("new/link"), 5, 6),
		k.Fchownat(unix.AT_FDCWD, in("new/file"), 5, 6),
		k.Fchmodat(unix.AT_FDCWD, in("new/file"), 0o4710),
		os.Rename(in("new"), in("renamed")),
		k.Fchownat(unix.AT_FDCWD, in("renamed"), 5, 6),
		k.Fchownat(unix.AT_FDCWD, in("etc/shadow"), 0, 0),
		k.Fchmodat(unix.AT_FDCWD, in("closed/in"), 0o6751),
		k.Fchownat(unix.AT_FDCWD, in("etc/sudo"), 1, owners.Unchanged),
		k.Mknodat(unix.AT_FDCWD, in("made"), unix.S_IFCHR|0o600, unix.Mkdev(5, 1)),
		k.Mknodat(unix.AT_FDCWD, in("zero-made"), unix.S_IFCHR|0o600, 0),
		os.Rename(in("null"), in("moved-null")),
		os.Rename(in("zero"), in("moved-zero")),
		k.Fchownat(unix.AT_FDCWD, in("dev/null"), 0, 9),
		k.Fchmodat(unix.AT_FDCWD, in("disk"), 0o600),
		os.Remove(in("over")),
		k.Setxattrat(unix.AT_FDCWD, in("renamed/file"), "user.mine", []byte("1")),
		os.Remove(in("again")),
		os.RemoveAll(in("hidden")),
		os.Mkdir(in("hidden"), 0o755),
	)
	for _, name := range []string{"renamed", "renamed/file", "renamed/link", "hidden", "made", "zero-made", "dev", "tmp", ".", "etc", "closed"} {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1e9}}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), times, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// describe writes what the tar called name holds.
func describe(t *testing.T, w io.Writer, name string, b []byte) {
	t.Helper()
	fmt.Fprintf(w, "%s\n", name)
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		fmt.Fprintf(w, "  %c %o %d:%d %s -> %q %d,%d %d bytes %q\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname, h.Devmajor, h.Devminor, h.Size, h.PAXRecords)
	}
	fmt.Fprintf(w, "  %s\n", digest.FromBytes(b))
}
