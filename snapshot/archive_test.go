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
	"testing"

	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

// hostile are archives that try to reach what is outside, or to confuse.
func hostile(t testing.TB) map[string][]byte {
	t.Helper()
	global := entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "0123"}}}
	m := map[string][]byte{}
	for name, entries := range map[string][]entry{
		"dot dot":                   {file("../outside/canary", "broken")},
		"many dot dots":             {file("a/../../../../../../../../outside/canary", "broken")},
		"absolute":                  {file("/outside/canary", "inside")},
		"link and through":          {symlink("l", "../outside"), file("l/canary", "broken"), file("l/new", "broken")},
		"absolute link and through": {symlink("l", "/outside"), file("l/new", "inside")},
		"link to itself":            {symlink("l", "l"), file("l/x", "")},
		"link in a link":            {symlink("a", ".."), symlink("a/b", "../outside"), file("b/canary", "broken")},
		"link over directory":       {folder("d/"), file("d/x", ""), symlink("d", "../outside"), file("d/canary", "broken")},
		"link to the parent":        {symlink("up", ".."), symlink("up/up2", "../.."), file("up/up2/outside/canary", "broken")},
		"directory over link":       {symlink("l", "../outside"), folder("l/"), file("l/canary", "inside")},
		"file over link":            {symlink("l", "../outside/canary"), file("l", "inside")},
		"hard link to outside":      {hardlink("h", "../outside/canary"), file("h", "broken")},
		"hard link through a link":  {symlink("l", "../outside"), hardlink("h", "l/canary"), file("h", "broken")},
		"hard link to a link":       {symlink("l", "../outside/canary"), hardlink("h", "l"), file("h", "inside")},
		"hard link to a directory":  {symlink("l", "../outside"), hardlink("h", "l"), file("h/canary", "broken")},
		"chmod through a link":      {symlink("l", "../outside"), folder("l/.").with(func(h *tar.Header) { h.Mode = 0 })},
		"whiteout outside":          {symlink("l", "../outside"), file("l/.wh.canary", "")},
		"opaque outside":            {symlink("l", "../outside"), file("l/.wh..wh..opq", "")},
		"whiteout of dot dot":       {folder("d/"), file("d/.wh...", "")},
		"replace all":               {folder("d/"), file("d", ""), symlink("d", "/"), folder("d"), file("d/x", "")},
		"global header":             {global, file("a", "a")},
		"replace own parent":        {symlink("up", "."), folder("d/"), file("up/d/x", ""), file("up/d", ""), file("d/y", "")},
	} {
		m[name] = makeTar(t, entries...)
	}
	m["cut"] = m["link in a link"][:1000]
	m["zeros"] = make([]byte, 4096)
	m["empty"] = nil
	return m
}

// jail is a root directory with a sibling that nothing may touch.
type jail struct {
	dir, root string
	before    []string
}

func newJail(t testing.TB) *jail {
	t.Helper()
	j := &jail{dir: t.TempDir()}
	j.root = filepath.Join(j.dir, "root")
	must(t, os.MkdirAll(j.root+"/in", 0o755), os.Mkdir(j.dir+"/outside", 0o755),
		os.Symlink("../../outside", j.root+"/in/sly"), os.Symlink("/in", j.root+"/abs"))
	write(t, j.dir+"/outside/canary", "sings")
	j.before = list(t, j.dir+"/outside")
	return j
}

// check fails the test if anything beside the root has changed.
func (j *jail) check(t testing.TB, what string) {
	t.Helper()
	sameTree(t, what+": outside", list(t, j.dir+"/outside"), j.before)
	d, err := os.ReadDir(j.dir)
	must(t, err)
	if len(d) != 2 {
		t.Errorf("%s: %d entries beside the root", what, len(d))
	}
}

func TestExtractHostile(t *testing.T) {
	t.Parallel()
	noChown := snapshot.ExtractOptions{NoChown: os.Geteuid() != 0}
	for name, b := range hostile(t) {
		for _, dir := range []string{"", "in", "in/sly", "abs/new", "/"} {
			j := newJail(t)
			err := snapshot.Extract(t.Context(), j.root, dir, bytes.NewReader(b), noChown)
			j.check(t, name+" into "+dir)
			if strings.HasPrefix(name, "dot dot") && err != nil {
				t.Errorf("%s: %v, though .. ends at the top", name, err)
			}
		}
	}
	j := newJail(t)
	if err := snapshot.Extract(t.Context(), j.root, "../outside", bytes.NewReader(makeTar(t)), noChown); err == nil {
		t.Error("extracted into a directory outside")
	}
	j.check(t, "destination outside")
}

// TestUnpackHostile unpacks the same archives as layers.
func TestUnpackHostile(t *testing.T) {
	needOwners(t)
	for name, b := range hostile(t) {
		j := newJail(t)
		s := openStore(t, j.root)
		lower := layer(t, symlink("low", "../../../../../../outside"), symlink("l", "../../../../outside"))
		_, err := s.Unpack(t.Context(), []snapshot.Layer{lower, layerOf(b, b)}, 2)
		t.Log(name, err)
		j.check(t, name)
	}
}

func FuzzExtract(f *testing.F) {
	for _, b := range hostile(f) {
		f.Add(b)
	}
	f.Add(gzipped(f, makeTar(f, folder("a/"), file("a/b", "c"))))
	f.Add(makeTar(f, file("a", "b").with(func(h *tar.Header) {
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y", "SCHILY.xattr.security.capability": capability}
	}), device("dev/null", tar.TypeChar, 1, 3), file("d/.wh.x", ""), file(".wh..wh..opq", "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if huge(b) {
			t.Skip("declares more than it holds")
		}
		j := newJail(t)
		o := snapshot.ExtractOptions{NoChown: os.Geteuid() != 0}
		_ = snapshot.Extract(t.Context(), j.root, "in", bytes.NewReader(b), o)
		j.check(t, "extract")
		s, err := snapshot.Open(j.root+"/store", snapshot.Options{})
		must(t, err)
		_, _ = s.Unpack(t.Context(), []snapshot.Layer{layerOf(b, b)}, 1)
		must(t, s.Close())
		j.check(t, "unpack")
		snapshot.IsArchive(b)
	})
}

// huge reports whether an archive wants sparse files that take long to write.
func huge(b []byte) bool {
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil {
			return false
		}
		if h.Size > 1<<20 {
			return true
		}
	}
}

func TestExtract(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/usr/old", 0o700), os.Symlink("usr", root+"/app"), os.Mkdir(root+"/usr/gone", 0o755))
	write(t, root+"/usr/old/kept", "kept")
	write(t, root+"/usr/file", "old")
	write(t, root+"/usr/gone/x", "x")
	b := makeTar(t, folder("./").with(func(h *tar.Header) { h.Mode = 0 }), folder("old/"), file("old/new", "new"),
		file("file", "new"), file("gone", "file now"), file(".wh.file", "not a whiteout"), hardlink("also", "./file"))
	o := snapshot.ExtractOptions{NoChown: true}
	must(t, snapshot.Extract(t.Context(), root, "/app/sub/..", bytes.NewReader(gzipped(t, b)), o))
	got := names(t, list(t, root))
	wantNames(t, "tree", got, ".", "app", "usr", "usr/.wh.file", "usr/also", "usr/file", "usr/gone", "usr/old", "usr/old/kept", "usr/old/new")
	st, err := os.Stat(root + "/usr/old")
	must(t, err)
	if st.Mode().Perm() != 0o755 || !st.ModTime().Equal(someTime) {
		t.Errorf("existing directory: %v %v", st.Mode(), st.ModTime())
	}
	text, err := os.ReadFile(root + "/usr/file")
	must(t, err)
	if string(text) != "new" {
		t.Errorf("file holds %q", text)
	}
}

func TestExtractOwners(t *testing.T) {
	needOwners(t)
	b := makeTar(t, file("d/f", "").with(func(h *tar.Header) { h.Uid, h.Gid, h.Uname = 5, 6, "nobody" }))
	for want, o := range map[string]snapshot.ExtractOptions{"5:6": {}, "0:0": {NoChown: true}} {
		root := t.TempDir()
		must(t, snapshot.Extract(t.Context(), root, "", bytes.NewReader(b), o))
		l := list(t, root)
		if !strings.Contains(l[2], " "+want+" ") {
			t.Errorf("%+v: %s", o, l[2])
		}
	}
}

// compressed returns b in all the ways that Extract takes.
func compressed(t testing.TB, b []byte) map[string][]byte {
	t.Helper()
	var x bytes.Buffer
	w, err := xz.NewWriter(&x)
	must(t, err)
	_, err = w.Write(b)
	must(t, err, w.Close())
	all := map[string][]byte{"plain": b, "gzip": gzipped(t, b), "zstd": zstded(t, b), "xz": x.Bytes()}
	cmd := exec.CommandContext(t.Context(), "bzip2", "-c")
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.Output(); err == nil {
		all["bzip2"] = out
	}
	return all
}

func TestCompressions(t *testing.T) {
	t.Parallel()
	random := make([]byte, 300000)
	for i := range random {
		random[i] = byte(i * i >> 3 * i)
	}
	archive := makeTar(t, file("a", string(random)), file("b", "b"))
	for name, b := range compressed(t, archive) {
		root := t.TempDir()
		must(t, snapshot.Extract(t.Context(), root, "", bytes.NewReader(b), snapshot.ExtractOptions{NoChown: true}))
		if n := len(list(t, root)); n != 3 {
			t.Errorf("%s: %d names", name, n)
		}
		if !snapshot.IsArchive(b) || !snapshot.IsArchive(b[:min(len(b), 4*512)]) {
			t.Errorf("%s: not taken for an archive", name)
		}
	}
	for name, b := range compressed(t, []byte(strings.Repeat("just text ", 100))) {
		if snapshot.IsArchive(b) {
			t.Errorf("%s text was taken for an archive", name)
		}
	}
	for name, b := range compressed(t, []byte("short")) {
		if snapshot.IsArchive(b) {
			t.Errorf("%s short text was taken for an archive", name)
		}
	}
	for name, b := range map[string][]byte{"zeros": make([]byte, 2048), "empty": nil, "bad gzip": []byte("\x1f\x8bzzzzzzzzzzzzzzz"), "BZh": []byte("BZhello world")} {
		if snapshot.IsArchive(b) {
			t.Errorf("%s was taken for an archive", name)
		}
	}
	if old := tarOf(t, "--format=v7"); !snapshot.IsArchive(old) {
		t.Error("v7 tar not recognised")
	}
}

func tarOf(t testing.TB, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/f", "f")
	b, err := exec.CommandContext(t.Context(), "tar", append(args, "-C", dir, "-c", "f")...).Output()
	must(t, err)
	return b
}

func TestExtractSparse(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"gnu", "posix"} {
		dir := t.TempDir()
		f, err := os.Create(dir + "/sparse")
		must(t, err)
		const size = 64 << 20
		_, err = f.WriteAt([]byte("data"), 10<<20)
		must(t, err, f.Truncate(size), f.Close())
		b, err := exec.CommandContext(t.Context(), "tar", "--format="+format, "--sparse", "-C", dir, "-c", "sparse").Output()
		must(t, err)
		root := t.TempDir()
		must(t, snapshot.Extract(t.Context(), root, "", bytes.NewReader(b), snapshot.ExtractOptions{NoChown: true}))
		var st unix.Stat_t
		must(t, unix.Stat(root+"/sparse", &st))
		if st.Size != size || st.Blocks*512 > 2<<20 {
			t.Errorf("%s: size %d, on disk %d", format, st.Size, st.Blocks*512)
		}
		got, err := os.ReadFile(root + "/sparse")
		must(t, err)
		if string(got[10<<20:10<<20+4]) != "data" || len(bytes.Trim(got, "\x00")) != 4 {
			t.Errorf("%s: wrong content", format)
		}
	}
}

func archiveOf(t testing.TB, root string) []byte {
	t.Helper()
	r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: root}, nil)
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err, r.Close())
	return b
}

// TestArchiveLargeOwners checks owners beyond what the octal fields of a tar hold.
func TestArchiveLargeOwners(t *testing.T) {
	t.Parallel()
	if !realRoot() {
		t.Skip("wants all IDs: run as root")
	}
	root, copied := t.TempDir(), t.TempDir()
	for i, id := range []int{1<<21 - 1, 1 << 21, 1<<31 + 1, 1<<32 - 2} {
		name := fmt.Sprintf("%s/f%d", root, i)
		write(t, name, "f")
		must(t, os.Lchown(name, id, id-1))
	}
	must(t, snapshot.Extract(t.Context(), copied, "", bytes.NewReader(archiveOf(t, root)), snapshot.ExtractOptions{}))
	sameTree(t, "copy", withoutRootTime(list(t, copied)), withoutRootTime(list(t, root)))
}

func TestArchive(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.MkdirAll(root+"/d/empty", 0o755), os.Symlink("d", root+"/l"), unix.Mkfifo(root+"/p", 0o600))
	write(t, root+"/d/f", "f")
	write(t, root+"/.wh.file", "an ordinary file here")
	must(t, os.Link(root+"/d/f", root+"/a"))
	b := archiveOf(t, root)
	wantNames(t, "archive", tarNames(t, b), ".wh.file", "a", "d/", "d/empty/", "d/f -> a", "l -> d", "p")
	if !bytes.Equal(b, archiveOf(t, root)) {
		t.Error("not the same bytes again")
	}
	copied := t.TempDir()
	must(t, snapshot.Extract(t.Context(), copied, "", bytes.NewReader(b), snapshot.ExtractOptions{NoChown: os.Geteuid() != 0}))
	sameTree(t, "copy", withoutRootTime(list(t, copied)), withoutRootTime(list(t, root)))
}

// TestArchiveHeaders pins what other programs depend on.
func TestArchiveHeaders(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root+"/f", "content")
	must(t, unix.Chmod(root+"/f", 0o4750), os.Chtimes(root+"/f", someTime.Truncate(1e9), someTime.Truncate(1e9)))
	b := archiveOf(t, root)
	if len(b) != 4*512 || string(b[257:265]) != "ustar\x0000" {
		t.Errorf("no plain ustar: %d bytes, %q", len(b), b[257:265])
	}
	h, err := tar.NewReader(bytes.NewReader(b)).Next()
	must(t, err)
	if h.Mode != 0o4750 || h.Uname != "" || h.Gname != "" || h.Uid != os.Geteuid() || !h.ModTime.Equal(someTime.Truncate(1e9)) {
		t.Errorf("header %+v", h)
	}
	must(t, os.Chtimes(root+"/f", someTime, someTime))
	h, err = tar.NewReader(bytes.NewReader(archiveOf(t, root))).Next()
	must(t, err)
	if h.Format != tar.FormatPAX || !h.ModTime.Equal(someTime) {
		t.Errorf("header %+v", h)
	}
}

func TestArchiveChangingFile(t *testing.T) {
	t.Parallel()
	for want, size := range map[string]int64{"longer": 9 << 20, "shorter": 1 << 20} {
		root := t.TempDir()
		must(t, os.MkdirAll(root+"/d", 0o755), os.WriteFile(root+"/d/file", make([]byte, 8<<20), 0o644))
		r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: root}, nil)
		must(t, err)
		_, err = io.ReadFull(r, make([]byte, 512))
		must(t, err, os.Truncate(root+"/d/file", size))
		_, err = io.Copy(io.Discard, r)
		if err == nil || !strings.Contains(err.Error(), "d/file") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		must(t, r.Close())
	}
}

// TestArchiveAbandoned closes and cancels archives that were not read to the end.
func TestArchiveAbandoned(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.WriteFile(root+"/file", make([]byte, 8<<20), 0o644))
	r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: root}, nil)
	must(t, err)
	_, err = io.ReadFull(r, make([]byte, 512))
	must(t, err, r.Close())
	if _, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: root + "/none"}, nil); err == nil {
		r, _ := snapshot.Archive(t.Context(), snapshot.Tree{Root: root + "/none"}, nil)
		if _, err := io.ReadAll(r); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no directory: %v", err)
		}
		must(t, r.Close())
	}
}

// TestDiffNormalises gives a file a capability of revision 3, as a process in
// another user namespace leaves it, and a name that a layer can't hold.
func TestDiffNormalises(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	write(t, a.Root()+"/cap", "c")
	want := capability
	v3 := []byte(capability + "\xe8\x03\x00\x00")
	v3[3] = 3
	if err := unix.Setxattr(a.Root()+"/cap", "security.capability", v3, 0); err != nil {
		must(t, unix.Setxattr(a.Root()+"/cap", "security.capability", []byte(capability), 0))
	}
	sn, err := a.Commit()
	must(t, err)
	h, err := tar.NewReader(bytes.NewReader(readDiff(t, sn))).Next()
	must(t, err)
	if got := h.PAXRecords["SCHILY.xattr.security.capability"]; got != want {
		t.Errorf("capability %q, want %q", got, want)
	}

	a, err = s.Prepare(t.Context(), nil)
	must(t, err)
	must(t, os.Mkdir(a.Root()+"/d", 0o755))
	write(t, a.Root()+"/d/.wh.x", "")
	sn, err = a.Commit()
	must(t, err)
	r, err := sn.Diff(t.Context(), nil)
	must(t, err)
	_, err = io.ReadAll(r)
	if err == nil || !strings.Contains(err.Error(), `"d/.wh.x": its name begins with .wh.`) {
		t.Errorf("got %v", err)
	}
	must(t, r.Close())
}

// Trees lie beside each other, each with links of its own.
func TestArchiveTrees(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root+"/a", "x")
	must(t, os.Link(root+"/a", root+"/b"))
	r, err := snapshot.ArchiveTrees(t.Context(), []snapshot.Tree{{Name: "one", Root: root}, {Name: "two", Root: root}}, &someTime)
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err, r.Close())
	wantNames(t, "archive", tarNames(t, b), "one/", "one/a", "one/b -> one/a", "two/", "two/a", "two/b -> two/a")
	h, err := tar.NewReader(bytes.NewReader(b)).Next()
	must(t, err)
	if h.Mode != 0o755 || h.Uid != 0 || !h.ModTime.Equal(someTime) {
		t.Errorf("the directory of a tree is %+v", h)
	}
}

// TestUnreadableFirstEntry has files that begin like a tar, of which no first entry can
// be read: BuildKit copies those as they are.
func TestUnreadableFirstEntry(t *testing.T) {
	t.Parallel()
	good := makeTar(t, file("a", "a").with(func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "v"} }))
	cases := map[string][]byte{"cut": good[:700]}
	for name, record := range map[string]string{
		"no length":  "x SCHILY.xattr.user.a=v\n",
		"no value":   "24 SCHILY.xattr.user.a_v\n",
		"bad number": "10 mtime=x\n",
		"no key":     "6 =v\n",
	} {
		b := bytes.Clone(good)
		copy(b[512:], append([]byte(record), make([]byte, 64)...))
		cases[name] = b
	}
	if !snapshot.IsArchive(good) || !snapshot.IsArchive(gzipped(t, good)) {
		t.Error("not taken for an archive")
	}
	for name, b := range cases {
		if snapshot.IsArchive(b) || snapshot.IsArchive(gzipped(t, b)) {
			t.Errorf("%s was taken for an archive", name)
		}
	}
	if !snapshot.IsArchive(gzipped(t, good)[:40]) {
		t.Error("what is too short to tell was not taken for an archive")
	}
}
