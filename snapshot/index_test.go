package snapshot_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func openIndexing(t testing.TB) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(t.TempDir(), snapshot.Options{Snapshotter: snapshot.Index, RecordOwners: true})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func layersOf(t testing.TB, c layering) []snapshot.Layer {
	t.Helper()
	var layers []snapshot.Layer
	for _, l := range c.layers {
		layers = append(layers, layer(t, l...))
	}
	return layers
}

// recorded lists the files below root as Indexed does.
func recorded(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := owners.Records.Fstatat(unix.AT_FDCWD, path, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		link, _ := os.Readlink(path)
		mode := st.Mode
		if mode&unix.S_IFMT == unix.S_IFLNK {
			mode = unix.S_IFLNK | 0o777
		}
		out = append(out, fmt.Sprintf("%q %06o %d:%d %d.%09d %s", name, mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, link))
		return nil
	}))
	slices.Sort(out)
	return out
}

// An index of layers says what unpacking them would make.
func TestIndexIsWhatUnpackingMakes(t *testing.T) {
	for _, c := range layerings() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openIndexing(t)
			sn := unpack(t, s, layersOf(t, c)...)
			indexed, err := s.Indexed(sn.ID())
			must(t, err)
			wantNames(t, "index", names(t, indexed), append([]string{""}, c.want[1:]...)...)
			v, err := s.View(t.Context(), sn)
			must(t, err)
			unpacked := recorded(t, v.Root())
			must(t, v.Close())
			sameTree(t, "index", indexed, unpacked)
		})
	}
}

func TestIndexingRefuses(t *testing.T) {
	for name, entries := range map[string][]entry{
		"out of the root":      {file("../x", "")},
		"an empty whiteout":    {file("a/.wh.", "")},
		"a file as parent":     {file("a", ""), file("a/b", "")},
		"a loop":               {symlink("a", "b"), symlink("b", "a"), file("a/x", "")},
		"a link to its parent": {folder("d/"), hardlink("x", "d")},
		"an unknown type":      {file("a", "").with(func(h *tar.Header) { h.Typeflag = 'Z' })},
	} {
		t.Run(name, func(t *testing.T) {
			s := openIndexing(t)
			if sn, err := s.Unpack(t.Context(), []snapshot.Layer{layer(t, entries...)}, 1); err == nil {
				t.Errorf("made the snapshot %s", sn.ID())
			}
		})
	}
}

// What a step does over indexes makes the same layer as over a mount, whatever is in
// its way.
func TestStepsOverIndexes(t *testing.T) {
	needMounts(t)
	needOwners(t)
	bases := []string{
		"duplicate", "directory to file and back", "through a lower link", "whiteout, then new directory", "attributes of implicit parents",
	}
	for _, base := range layerings() {
		if !slices.Contains(bases, base.name) {
			continue
		}
		t.Run(base.name, func(t *testing.T) {
			t.Parallel()
			mounting, indexing := openStore(t, t.TempDir()), openIndexing(t)
			mounted, indexed := unpack(t, mounting, layersOf(t, base)...), unpack(t, indexing, layersOf(t, base)...)
			leading := layering{name: "names that lead elsewhere", layers: [][]entry{
				{symlink("abs", "/a"), file("abs/f", ""), symlink("up", "../.."), file("up/a/g", "")},
				{file("f", ""), hardlink("g", "f").with(func(h *tar.Header) { h.Mode, h.Uid = 0o755, 7 })},
				{hardlink("h", "a/b").with(func(h *tar.Header) { h.Mode, h.Uid = 0o755, 7 }), symlink("a/l", "/b"), hardlink("i", "a/l")},
				{folder("/").with(func(h *tar.Header) { h.Mode, h.Gid = 0o700, 7 }), file("/x", "")},
				{symlink("gone", "nowhere"), file("gone/x", "")},
			}}
			for _, step := range append(layerings(), leading) {
				for n, entries := range step.layers {
					entries = slices.DeleteFunc(slices.Clone(entries), func(e entry) bool { return strings.Contains(e.Name, ".wh.") })
					archive := makeTar(t, entries...)
					want := stepOver(t, mounting, mounted, archive)
					got := stepOver(t, indexing, indexed, archive)
					if got != want {
						t.Errorf("%s, layer %d: over indexes\n%s\nover a mount\n%s", step.name, n, got, want)
					}
				}
			}
		})
	}
}

// stepOver describes the layer that unpacking the archive over base makes, and one
// more that is laid over that.
func stepOver(t *testing.T, s *snapshot.Store, base *snapshot.Snapshot, archive []byte) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{"/", "a"} {
		a, err := s.Prepare(t.Context(), base)
		must(t, err)
		err = snapshot.Extract(t.Context(), a.Root(), dir, bytes.NewReader(archive), snapshot.ExtractOptions{Owners: s.Owners(), In: a})
		if err != nil {
			must(t, a.Discard())
			return b.String() + "an error"
		}
		base, err = a.Commit()
		must(t, err)
		latest := someTime.Add(time.Hour)
		r, err := base.Diff(t.Context(), &latest)
		must(t, err)
		var diff bytes.Buffer
		_, err = diff.ReadFrom(r)
		must(t, err, r.Close())
		describe(t, &b, dir, diff.Bytes())
	}
	return b.String()
}

func TestShowFile(t *testing.T) {
	s := openIndexing(t)
	base := unpack(t, s, layer(t,
		folder("etc/"), symlink("etc/passwd", "../usr/lib/passwd"), file("usr/lib/passwd", "root:0"),
		file("etc/group", "wheel"), file("other", "text"), symlink("loop", "loop"), symlink("gone", "nowhere"),
	))
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	for name, want := range map[string]string{"/etc/passwd": "root:0", "/etc/group": "wheel", "/other": "text", "/none": "", "/gone": "", "/etc": ""} {
		must(t, a.ShowFile(t.Context(), name))
		got, _ := os.ReadFile(filepath.Join(a.Root(), name))
		if string(got) != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if err := a.ShowFile(t.Context(), "/loop"); err == nil {
		t.Error("a loop was followed")
	}
	sn, err := a.Commit()
	must(t, err)
	wantNames(t, "what was only shown", tarNames(t, readDiff(t, sn)))
}

// A file of any size is shown without being held in memory.
func TestShowLargeFile(t *testing.T) {
	const size = 32 << 20
	s := openIndexing(t)
	base := unpack(t, s, layer(t, file("large", strings.Repeat("0123456789abcdef", size/16))))
	show := func() (allocated uint64) {
		a, err := s.Prepare(t.Context(), base)
		must(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		must(t, a.ShowFile(t.Context(), "large"))
		runtime.ReadMemStats(&after)
		fi, err := os.Stat(filepath.Join(a.Root(), "large"))
		must(t, err, a.Discard())
		if fi.Size() != size {
			t.Errorf("%d bytes of %d", fi.Size(), size)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	show() // unpacks the layer
	if n := show(); n > size/4 {
		t.Errorf("%d bytes of memory for a file of %d", n, size)
	}
}

// Nothing of a layer but account files is read twice, and none is unpacked, until
// files are read.
func TestIndexingUnpacksNothing(t *testing.T) {
	dir := t.TempDir()
	open := func() *snapshot.Store {
		s, err := snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Index, RecordOwners: true})
		must(t, err)
		return s
	}
	l := layer(t, folder("d/"), file("d/f", "x"))
	s := open()
	sn := unpack(t, s, l)
	a, err := s.Prepare(t.Context(), sn)
	must(t, err)
	must(t, a.Reveal()("d/f"), os.Remove(filepath.Join(a.Root(), "d/f")))
	step, err := a.Commit()
	must(t, err)
	wantNames(t, "step", tarNames(t, readDiff(t, step)), "d/", "d/.wh.f")
	if found, _ := filepath.Glob(filepath.Join(dir, "ids/*/snapshots", sn.ID())); len(found) > 0 {
		t.Errorf("unpacked: %q", found)
	}
	must(t, s.Close())

	s = open()
	defer func() { must(t, s.Close()) }()
	if _, err := s.Snapshot(step.ID()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a snapshot of files that are nowhere: %v", err)
	}
	s.Offer([]snapshot.Layer{l})
	step, err = s.Snapshot(step.ID())
	must(t, err)
	v, err := s.View(t.Context(), step)
	must(t, err)
	wantNames(t, "view", names(t, recorded(t, v.Root())), "", "d")
	must(t, v.Close())
}

// A snapshot that is only indexed is there as long as its layers' content can be had:
// from where it was offered, or from the store.
func TestIndexedWithoutOffer(t *testing.T) {
	dir := t.TempDir()
	open := func() *snapshot.Store {
		s, err := snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Index, RecordOwners: true})
		must(t, err)
		return s
	}
	plain := makeTar(t, file("a", "b"))
	l := layerOf(plain, gzipped(t, plain))
	l.Blob.Digest = digest.FromBytes(gzipped(t, plain))
	s := open()
	id := unpack(t, s, l).ID()
	w, err := s.CreateBlob()
	must(t, err)
	_, err = w.Write(gzipped(t, plain))
	must(t, err)
	_, _, err = w.Commit()
	must(t, err, s.Close())

	s = open()
	sn, err := s.Snapshot(id)
	must(t, err)
	v, err := s.View(t.Context(), sn)
	must(t, err)
	if b, err := os.ReadFile(v.Root() + "/a"); string(b) != "b" {
		t.Errorf("the file holds %q, %v", b, err)
	}
	_, err = s.Prune(t.Context(), snapshot.PruneOptions{Match: func(it snapshot.Item) bool { return it.Kind != snapshot.ItemRecord }})
	must(t, err, v.Close(), s.Close())
	must(t, os.RemoveAll(dir+"/blobs"))
	found, err := filepath.Glob(dir + "/ids/*/snapshots/*")
	must(t, err)
	for _, path := range found {
		must(t, os.RemoveAll(path))
	}

	s = open()
	if _, err := s.Snapshot(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its layer: %v", err)
	}
	s.Offer([]snapshot.Layer{l})
	_, err = s.Snapshot(id)
	must(t, err, s.Close())
}
