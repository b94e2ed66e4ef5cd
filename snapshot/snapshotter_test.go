package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
)

func openStoreWith(t testing.TB, dir string, o snapshot.Options) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(dir, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// others are the snapshotters that are compared with the kernel's overlay.
var others = []snapshot.Snapshotter{snapshot.Copy, snapshot.FuseOverlay}

// eachOther runs test for all of them that work here.
func eachOther(t *testing.T, test func(t *testing.T, sn snapshot.Snapshotter)) {
	t.Helper()
	for _, sn := range others {
		t.Run(string(sn), func(t *testing.T) {
			if err := works(t.TempDir(), sn); err != nil {
				t.Skip(err)
			}
			test(t, sn)
		})
	}
}

// change is something that a step does to a file system.
type change struct {
	text string
	do   func(root string) error
}

// scribe invents changes from a seed. They meet on few names, so that files,
// directories and links often replace each other.
type scribe struct {
	*rand.Rand

	// beyond reports whether the snapshotter can't do something to path.
	beyond func(kind, path string) bool
	// tied reports whether a file at or below the path has had several names since
	// before the step: an overlay unties them when it is changed under one.
	tied func(path string) bool
}

func (r *scribe) path() string {
	name := func() string { return string(rune('a' + r.IntN(4))) }
	p := name()
	for range r.IntN(3) {
		p += "/" + name()
	}
	return p
}

func (r *scribe) body() string {
	return strings.Repeat(string(rune('A'+r.IntN(26))), r.IntN(3)*8)
}

// next returns a change that applies to the state of the tree that tied knows.
func (r *scribe) next() change {
	p, q, body := r.path(), r.path(), r.body()
	n := r.IntN(1 << 20)
	at := time.Unix(1600000000+int64(n), int64(n))
	changes := []change{
		{"write " + p + " " + body, func(root string) error { return put(root+"/"+p, os.O_CREATE|os.O_TRUNC, body) }},
		{"append " + p, func(root string) error { return put(root+"/"+p, os.O_APPEND, "more") }},
		{"same size and time " + p, func(root string) error { return rewrite(root + "/" + p) }},
		{"renew " + p, func(root string) error { // often gets the same inode number
			fi, err := os.Stat(root + "/" + p)
			if err != nil || !fi.Mode().IsRegular() {
				return errors.Join(err, unix.EINVAL)
			}
			b, err := os.ReadFile(root + "/" + p)
			return errors.Join(err, os.Remove(root+"/"+p), os.WriteFile(root+"/"+p, b, 0o644), os.Chtimes(root+"/"+p, fi.ModTime(), fi.ModTime()))
		}},
		{"mkdir " + p, func(root string) error { return os.MkdirAll(root+"/"+p, 0o755) }},
		{"mkdir " + q, func(root string) error { return os.MkdirAll(root+"/"+q, 0o755) }},
		{"remove " + p, func(root string) error { return os.RemoveAll(root + "/" + p) }},
		{"remake " + p, func(root string) error {
			return errors.Join(os.RemoveAll(root+"/"+p), os.Mkdir(root+"/"+p, 0o755))
		}},
		{"symlink " + p + " to " + q, func(root string) error { return os.Symlink(q, root+"/"+p) }},
		{"link " + p + " to " + q, func(root string) error { return os.Link(root+"/"+q, root+"/"+p) }},
		{"rename " + q + " to " + p, func(root string) error { return move(root+"/"+q, root+"/"+p) }},
		{"there and back " + p, func(root string) error {
			if fi, err := os.Stat(root + "/" + p); err != nil || fi.IsDir() {
				return errors.Join(err, unix.EISDIR) // in an overlay another one comes back
			}
			return errors.Join(move(root+"/"+p, root+"/away"), move(root+"/away", root+"/"+p))
		}},
		{fmt.Sprintf("chmod %s %o", p, n&0o7777), func(root string) error {
			return unix.Fchmodat(unix.AT_FDCWD, root+"/"+p, uint32(n&0o7777), unix.AT_SYMLINK_NOFOLLOW)
		}},
		{"chmod to the same " + p, func(root string) error {
			var st unix.Stat_t
			if err := unix.Lstat(root+"/"+p, &st); err != nil {
				return err
			}
			return unix.Fchmodat(unix.AT_FDCWD, root+"/"+p, st.Mode&0o7777, unix.AT_SYMLINK_NOFOLLOW)
		}},
		{fmt.Sprintf("chown %s %d", p, n%1000), func(root string) error { return os.Lchown(root+"/"+p, n%1000, n%7) }},
		{"setcap " + p, func(root string) error {
			return unix.Lsetxattr(root+"/"+p, "security.capability", []byte(capability), 0)
		}},
		{"touch " + p, func(root string) error {
			times := []unix.Timespec{{Sec: at.Unix()}, {Sec: at.Unix(), Nsec: int64(at.Nanosecond())}}
			return unix.UtimesNanoAt(unix.AT_FDCWD, root+"/"+p, times, unix.AT_SYMLINK_NOFOLLOW)
		}},
		{"fifo " + p, func(root string) error { return unix.Mkfifo(root+"/"+p, 0o600) }},
		{"device " + p, func(root string) error {
			return owners.Devices.Mknodat(unix.AT_FDCWD, root+"/"+p, unix.S_IFCHR|0o600, uint64(n%2)*unix.Mkdev(1, 3))
		}},
		{"socket " + p, func(root string) error { return unix.Mknod(root+"/"+p, unix.S_IFSOCK|0o600, 0) }},
	}
	c := changes[r.IntN(len(changes))]
	kind, _, _ := strings.Cut(c.text, " ")
	if r.beyond(kind, p) {
		return r.next()
	}
	if kind != "remove" && kind != "mkdir" && (r.tied(p) || r.tied(q)) {
		return change{"nothing", func(string) error { return nil }}
	}
	return c
}

// put writes body to a file, and to nothing that would wait for a reader.
func put(path string, how int, body string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|how, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(body)
	return errors.Join(err, f.Close())
}

// rewrite changes the first byte of a file and gives it its time back.
func rewrite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() == 0 {
		return err
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], 0)
	return errors.Join(err, os.Chtimes(path, fi.ModTime(), fi.ModTime()))
}

// move is mv(1): what an overlay doesn't rename is copied.
func move(from, to string) error {
	if strings.HasPrefix(to+"/", from+"/") || strings.HasPrefix(from+"/", to+"/") {
		return unix.EINVAL
	}
	err := os.Rename(from, to)
	if !errors.Is(err, unix.EXDEV) {
		return err
	}
	if err := unix.Rmdir(to); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if out, err := exec.Command("cp", "-aT", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return os.RemoveAll(from)
}

// tiedFiles returns which files below root have several names now, by inode.
func tiedFiles(t *testing.T, root string) map[uint64]bool {
	t.Helper()
	found := map[uint64]bool{}
	eachFile(t, root, func(_ string, st *unix.Stat_t) {
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			found[st.Ino] = true
		}
	})
	return found
}

func eachFile(t *testing.T, root string, f func(path string, st *unix.Stat_t)) {
	t.Helper()
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil {
			f(path, &st)
		}
		return err
	}))
}

// latest is later than what is in an image and earlier than what a test does.
var latest = someTime.Add(time.Second)

func diffUntil(t *testing.T, sn *snapshot.Snapshot) []byte {
	t.Helper()
	r, err := sn.Diff(t.Context(), &latest)
	must(t, err)
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	must(t, err, r.Close())
	return b.Bytes()
}

// entries describes those of a tar.
func entries(t *testing.T, b []byte) string {
	t.Helper()
	found := headers(t, bytes.NewReader(b))
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(found)) {
		h := found[name]
		lines = append(lines, fmt.Sprintf("%c %s -> %q %o %d:%d %d bytes %v %q", h.Typeflag, name, h.Linkname, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime, h.PAXRecords))
	}
	return strings.Join(lines, "\n\t")
}

// TestSameLayers has the kernel's overlay and another snapshotter take the same
// steps, and compares the layers byte for byte, the trees, and the trees that the
// layers make when all of them are unpacked anew.
func TestSameLayers(t *testing.T) {
	needMounts(t)
	eachOther(t, func(t *testing.T, other snapshot.Snapshotter) {
		for seed := range uint64(rounds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { sameLayers(t, other, seed, t.TempDir) })
		}
	})
}

// rounds is how many random runs there are for each snapshotter.
const rounds = 5

// TestFileMarks is TestSameLayers with stores that lie on an overlay, as they do in a
// container: it takes no whiteouts.
func TestFileMarks(t *testing.T) {
	needMounts(t)
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			sameLayers(t, snapshot.Copy, seed, func() string { return onOverlay(t) })
		})
	}
}

// onOverlay returns a directory of an overlay.
func onOverlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"l", "u", "w", "m"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("overlay", dir+"/m", "overlay", 0, "userxattr,lowerdir="+dir+"/l,upperdir="+dir+"/u,workdir="+dir+"/w"))
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/m", unix.MNT_DETACH)) })
	if err := unix.Mknod(dir+"/m/whiteout", unix.S_IFCHR, 0); err == nil {
		t.Error("the overlay takes whiteouts")
	}
	return dir + "/m"
}

// sameLayers takes random steps in an overlay and in a store in a directory that
// dir returns.
func sameLayers(t *testing.T, other snapshot.Snapshotter, seed uint64, dir func() string) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	layers := []snapshot.Layer{
		layer(t, folder("a/"), file("a/a", "AAAAAAAA"), folder("a/b/"), file("a/b/c", "c"), folder("b/"), symlink("b/a", "../a"),
			file("b/b", "b"), folder("c/"), folder("c/c/"), file("c/c/a", "x"), file("c/c/b", "y"), file("d", "d")),
		layer(t, file("a/.wh.a", ""), folder("c/"), folder("c/c/"), file("c/c/.wh..wh..opq", ""), file("c/c/d", "z")),
	}
	if seed%3 == 0 {
		layers = append(layers, layer(t, hardlink("b/c", "b/b"), hardlink("c/b", "d")))
	}
	stores := []*snapshot.Store{
		openStoreWith(t, t.TempDir(), snapshot.Options{}),
		openStoreWith(t, dir(), snapshot.Options{Snapshotter: other}),
	}
	at := []*snapshot.Snapshot{unpack(t, stores[0], layers...), unpack(t, stores[1], layers...)}
	var steps []string
	for step := range 4 {
		var active []*snapshot.Active
		for i, s := range stores {
			a, err := s.Prepare(t.Context(), at[i])
			must(t, err)
			active = append(active, a)
		}
		var log []string
		roots := []string{active[0].Root(), active[1].Root()}
		before := tiedFiles(t, roots[1])
		w := &scribe{Rand: r, beyond: limits(other, roots[1]), tied: func(path string) (tied bool) {
			if _, err := os.Lstat(roots[1] + "/" + path); err == nil {
				eachFile(t, roots[1]+"/"+path, func(_ string, st *unix.Stat_t) { tied = tied || before[st.Ino] })
			}
			return tied
		}}
		for range 1 + r.IntN(12) {
			c := w.next()
			errs := []error{c.do(roots[0]), c.do(roots[1])}
			if (errs[0] == nil) != (errs[1] == nil) {
				t.Fatalf("step %d: %s: %v and %v after\n%s", step, c.text, errs[0], errs[1], strings.Join(log, "\n"))
			}
			if errs[0] == nil {
				log = append(log, c.text)
			}
		}
		var diffs [][]byte
		for i, a := range active {
			sn, err := a.Commit()
			must(t, err)
			at[i] = sn
			diffs = append(diffs, diffUntil(t, sn))
		}
		if !bytes.Equal(diffs[0], diffs[1]) {
			t.Fatalf("step %d: the layers differ after\n%s\noverlay:\n\t%s\n%s:\n\t%s", step, strings.Join(log, "\n"),
				entries(t, diffs[0]), other, entries(t, diffs[1]))
		}
		layers = append(layers, layerOf(diffs[1], diffs[1]))
		want := settled(viewed(t, stores[0], at[0]))
		sameTree(t, fmt.Sprintf("step %d: view after\n%s\n", step, strings.Join(log, "\n")), settled(viewed(t, stores[1], at[1])), want)
		if t.Failed() {
			return
		}
		steps = append(steps, log...)
	}
	want := image(settled(viewed(t, stores[0], at[0])))
	for _, s := range []*snapshot.Store{openStore(t, t.TempDir()), openStoreWith(t, dir(), snapshot.Options{Snapshotter: other})} {
		sameTree(t, "unpacked after\n"+strings.Join(steps, "\n")+"\n", image(viewed(t, s, unpack(t, s, layers...))), want)
	}
}

// limits returns what isn't done to a tree below root because of the flaws of
// fuse-overlayfs 1.10: where a fifo or socket from below is changed it has a regular
// file, and links that it copies up change the time of their directory.
func limits(sn snapshot.Snapshotter, root string) func(kind, path string) bool {
	return func(kind, path string) bool {
		if sn != snapshot.FuseOverlay || kind == "remove" {
			return false
		}
		fi, err := os.Lstat(root + "/" + path)
		return kind == "fifo" || kind == "socket" || err == nil && fi.Mode()&os.ModeSymlink != 0
	}
}

// settled drops from a list what two runs of the same changes may differ in: times
// of what they changed.
func settled(list []string) []string {
	out := slices.Clone(list)
	for i, l := range out {
		name, rest, ok := strings.Cut(l, `" `)
		fields := strings.SplitN(rest, " ", 4)
		if !ok || len(fields) < 3 || strings.HasPrefix(l, "[") {
			continue
		}
		if fields[2] > fmt.Sprintf("%d.%09d", latest.Unix(), latest.Nanosecond()) {
			fields[2] = fmt.Sprintf("%d.%09d", latest.Unix(), latest.Nanosecond())
		}
		out[i] = name + `" ` + strings.Join(fields, " ")
	}
	return out
}

// image drops from a settled list what no image holds: sockets and the root's time.
func image(list []string) []string {
	return slices.DeleteFunc(slices.Clone(withoutRootTime(list)), func(l string) bool { return strings.Contains(l, `" 14`) })
}
