package snapshot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

// A layering is what layers, laid over each other, come to.
type layering struct {
	name   string
	layers [][]entry
	want   []string
}

func layerings() []layering {
	owned := func(e entry) entry {
		return e.with(func(h *tar.Header) { h.Uid, h.Gid, h.Mode = 5, 6, 0o750 })
	}
	usr := []entry{folder("usr/"), folder("usr/bin/"), file("usr/bin/sh", "sh"), symlink("bin", "usr/bin")}
	return []layering{
		{"one layer", [][]entry{{folder("a/"), file("a/b", "")}}, []string{".", "a", "a/b"}},
		{"names with dots and slashes", [][]entry{{folder("./a/"), file("./a/./b", ""), file("/c", ""), file("a/../d", "")}}, []string{".", "a", "a/b", "c", "d"}},
		{"no parent", [][]entry{{file("a/b/c", "")}}, []string{".", "a", "a/b", "a/b/c"}},
		{"parent after child", [][]entry{{file("a/b", ""), folder("a/")}}, []string{".", "a", "a/b"}},
		{"duplicate", [][]entry{{file("a", "1"), file("a", "2")}}, []string{".", "a"}},
		{"file to directory", [][]entry{{file("a", ""), folder("a/"), file("a/b", "")}}, []string{".", "a", "a/b"}},
		{"directory to file", [][]entry{{folder("a/"), file("a/b", ""), file("a", "")}}, []string{".", "a"}},
		{"directory to file and back", [][]entry{{folder("a/"), file("a/b/c", ""), file("a", ""), folder("a/"), file("a/d", "")}}, []string{".", "a", "a/d"}},
		{"symlink to directory", [][]entry{{folder("b/"), symlink("a", "b"), file("a/x", ""), folder("a/"), file("a/y", "")}}, []string{".", "a", "a/y", "b", "b/x"}},
		{"symlink moved", [][]entry{{folder("b/"), folder("c/"), symlink("a", "b"), file("a/x", ""), symlink("a", "c"), file("a/y", "")}}, []string{".", "a", "b", "b/x", "c", "c/y"}},
		{"whiteout", [][]entry{{file("a", ""), file("b", "")}, {file(".wh.a", "")}}, []string{".", "b"}},
		{"whiteout of directory", [][]entry{{file("a/b/c", ""), file("b", "")}, {file(".wh.a", "")}}, []string{".", "b"}},
		{"whiteout without parent", [][]entry{{file("a/b", ""), file("a/c", "")}, {file("a/.wh.b", "")}}, []string{".", "a", "a/c"}},
		{"whiteout of nothing", [][]entry{{file("a", "")}, {file("x/y/.wh.z", ""), file(".wh.q", "")}}, []string{".", "a"}},
		{"whiteout under a whiteout", [][]entry{{file("a/b", ""), file("c", "")}, {file(".wh.a", ""), file("a/.wh.b", "")}}, []string{".", "c"}},
		{"whiteout above a whiteout", [][]entry{{file("a/b", ""), file("c", "")}, {file("a/.wh.b", ""), file(".wh.a", "")}}, []string{".", "c"}},
		{"whiteout, then new directory", [][]entry{{file("a/b", "")}, {file(".wh.a", ""), file("a/c", "")}}, []string{".", "a", "a/c"}},
		{"new directory, then whiteout", [][]entry{{file("a/b", "")}, {folder("a/"), file("a/c", ""), file(".wh.a", "")}}, []string{".", "a", "a/c"}},
		{"whiteout of the layer's own file", [][]entry{{file("a", "1")}, {file("a", "2"), file(".wh.a", "")}}, []string{".", "a"}},
		{"whiteout through a lower link", [][]entry{usr, {file("bin/.wh.sh", "")}}, []string{".", "bin", "usr", "usr/bin"}},
		{"opaque", [][]entry{{file("a/b", ""), file("a/c/d", "")}, {folder("a/"), file("a/.wh..wh..opq", ""), file("a/e", "")}}, []string{".", "a", "a/e"}},
		{"opaque last", [][]entry{{file("a/b", ""), file("a/c/d", "")}, {file("a/c/e", ""), file("a/.wh..wh..opq", "")}}, []string{".", "a", "a/c", "a/c/e"}},
		{"opaque of nothing", [][]entry{{file("a", "")}, {file("b/.wh..wh..opq", "")}}, []string{".", "a"}},
		{"opaque root", [][]entry{{file("a", ""), file("b", "")}, {file(".wh..wh..opq", ""), file("c", "")}, {file("d", "")}}, []string{".", "c", "d"}},
		{"opaque through a lower link", [][]entry{usr, {file("bin/.wh..wh..opq", ""), file("bin/x", "")}}, []string{".", "bin", "usr", "usr/bin", "usr/bin/x"}},
		{"AUFS leftovers", [][]entry{{file(".wh..wh.aufs", ""), folder(".wh..wh.plnk/"), file(".wh..wh.plnk/1.2", ""), file("a", "")}}, []string{".", "a"}},
		{"added, removed, added", [][]entry{{file("a/b", "1")}, {file(".wh.a", "")}, {file("a/c", "3")}}, []string{".", "a", "a/c"}},
		{"through a lower link", [][]entry{usr, {file("bin/x", "x")}}, []string{".", "bin", "usr", "usr/bin", "usr/bin/sh", "usr/bin/x"}},
		{"through an absolute lower link", [][]entry{{folder("opt/"), folder("opt/v1/"), symlink("app", "/opt/cur"), symlink("opt/cur", "v1")}, {file("app/d/x", "x"), file("app/y", "")}}, []string{".", "app", "opt", "opt/cur", "opt/v1", "opt/v1/d", "opt/v1/d/x", "opt/v1/y"}},
		{"through a lower link to nothing", [][]entry{{symlink("run", "var/run")}, {file("run/x", "x")}}, []string{".", "run", "var", "var/run", "var/run/x"}},
		{"through a lower link out of the root", [][]entry{{symlink("up", "../../../etc")}, {file("up/x", "x")}}, []string{".", "etc", "etc/x", "up"}},
		{"both through a lower link and directly", [][]entry{usr, {file("bin/d/x", "x"), folder("usr/"), folder("usr/bin/"), folder("usr/bin/d/"), file("usr/bin/d/y", "")}}, []string{".", "bin", "usr", "usr/bin", "usr/bin/d", "usr/bin/d/x", "usr/bin/d/y", "usr/bin/sh"}},
		{"lower link replaced by an entry", [][]entry{usr, {folder("bin/"), file("bin/x", "x")}}, []string{".", "bin", "bin/x", "usr", "usr/bin", "usr/bin/sh"}},
		{"through the layer's own link to a lower directory", [][]entry{{folder("usr/"), folder("usr/lib/")}, {symlink("lib", "usr/lib"), file("lib/x", "")}}, []string{".", "lib", "usr", "usr/lib", "usr/lib/x"}},
		{"hard link before its target", [][]entry{{hardlink("a", "b"), file("b", "b")}}, []string{".", "a", "b"}},
		{"hard link to below", [][]entry{{file("a/b", "b")}, {hardlink("c", "a/b"), hardlink("d/e", "c")}}, []string{".", "a", "a/b", "c", "d", "d/e"}},
		{"hard link to below through a link", [][]entry{usr, {hardlink("c", "bin/sh")}}, []string{".", "bin", "c", "usr", "usr/bin", "usr/bin/sh"}},
		{"hard link to a link", [][]entry{{symlink("a", "/etc/shadow"), hardlink("b", "a")}}, []string{".", "a", "b"}},
		{"hard link to itself", [][]entry{{file("a", "a"), hardlink("a", "a")}}, []string{".", "a"}},
		{"hard link over a directory", [][]entry{{file("a", "a"), folder("d/"), file("d/x", ""), hardlink("d", "a")}}, []string{".", "a", "d"}},
		{"hard link with attributes", [][]entry{{file("a", "a"), owned(hardlink("b", "a"))}}, []string{".", "a", "b"}},
		{"hard links with other attributes", [][]entry{{file("a", "a"), owned(hardlink("b", "a")), hardlink("c", "b")}}, []string{".", "a", "b", "c"}},
		{"hard link with attributes before its target", [][]entry{{owned(hardlink("a", "b")), file("b", "b")}}, []string{".", "a", "b"}},
		{"hard link with attributes to below", [][]entry{{file("a/b", "b"), hardlink("a/c", "a/b")}, {owned(hardlink("c", "a/b"))}}, []string{".", "a", "a/b", "a/c", "c"}},
		{"hard links to below, the last with attributes", [][]entry{{file("a/b", "b")}, {hardlink("c", "a/b"), owned(hardlink("d/e", "c"))}}, []string{".", "a", "a/b", "c", "d", "d/e"}},
		{"hard links to below, the first with attributes", [][]entry{{file("a/b", "b")}, {owned(hardlink("c", "a/b")), hardlink("d/e", "c")}}, []string{".", "a", "a/b", "c", "d", "d/e"}},
		{"hard link with attributes through a lower link", [][]entry{usr, {owned(hardlink("c", "bin/sh"))}}, []string{".", "bin", "c", "usr", "usr/bin", "usr/bin/sh"}},
		{"hard link with attributes to the layer's own through a lower link", [][]entry{usr, {file("usr/bin/x", ""), hardlink("y", "usr/bin/x"), owned(hardlink("c", "bin/x"))}}, []string{".", "bin", "c", "usr", "usr/bin", "usr/bin/sh", "usr/bin/x", "y"}},
		{"hard link with attributes to a link below", [][]entry{{symlink("a", "/etc/shadow")}, {owned(hardlink("b", "a"))}}, []string{".", "a", "b"}},
		{"hard link to a link with an owner", [][]entry{{symlink("a", "b").with(func(h *tar.Header) { h.Uid = 5 }), hardlink("c", "a").with(func(h *tar.Header) { h.Uid = 5 })}}, []string{".", "a", "c"}},
		{"device in /dev", [][]entry{{folder("dev/"), device("dev/null", tar.TypeChar, 1, 3).with(func(h *tar.Header) { h.Name = "dev/../a" }).with(func(h *tar.Header) { h.Typeflag = tar.TypeFifo })}}, []string{".", "a", "dev"}},
		{"attributes of implicit parents", [][]entry{{owned(folder("a/")), owned(folder("a/b/"))}, {file("a/b/c", "")}}, []string{".", "a", "a/b", "a/b/c"}},
	}
}

// TestUnpack compares what layers make, extracted each by itself, with what they
// mean one after the other.
func TestUnpack(t *testing.T) {
	needMounts(t)
	for _, c := range layerings() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			var layers []snapshot.Layer
			for _, l := range c.layers {
				layers = append(layers, layer(t, l...))
			}
			got := viewed(t, s, unpack(t, s, layers...))
			wantNames(t, "tree", names(t, got), c.want...)
		})
	}
}

// TestUnpackOver lays layers over a snapshot that is no image's: the same as one after
// the other over nothing. What lies on layers alone has the IDs of their chains.
func TestUnpackOver(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	active, err := s.Prepare(t.Context(), nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(active.Root(), "own"), []byte("own"), 0o644))
	must(t, os.Mkdir(filepath.Join(active.Root(), "gone"), 0o755))
	base, err := active.Commit()
	must(t, err)
	layers := []snapshot.Layer{
		layer(t, file("a/b", "1"), file(".wh.gone", "")), layer(t, hardlink("a/c", "own"), file("a/.wh.b", "")),
	}
	both, err := s.UnpackOver(t.Context(), base, layers, 0)
	must(t, err)
	wantNames(t, "over a snapshot", names(t, viewed(t, s, both)), ".", "a", "a/c", "own")
	first := snapshot.StackID(base.ID(), layers[0].DiffID)
	if want := snapshot.StackID(first, layers[1].DiffID); both.ID() != want || both.Parent() != first {
		t.Errorf("ID %s over %s, want %s over %s", both.ID(), both.Parent(), want, first)
	}
	layers[1] = layer(t, file("a/.wh.b", ""))
	chain := unpack(t, s, layers...)
	below, err := s.Snapshot(chain.Parent())
	must(t, err)
	again, err := s.UnpackOver(t.Context(), below, layers[1:], 0)
	must(t, err)
	want := identity.ChainID([]digest.Digest{layers[0].DiffID, layers[1].DiffID}).Encoded()
	if again.ID() != want || chain.ID() != want || below.Parent() != "" {
		t.Errorf("IDs %s and %s, want %s; below the lowest is %q", again.ID(), chain.ID(), want, below.Parent())
	}
	if same, err := s.UnpackOver(t.Context(), base, nil, 0); err != nil || same != base {
		t.Errorf("no layer: %v, %v", same, err)
	}
}

// TestUnpackDetails looks at contents and attributes where names say too little.
func TestUnpackDetails(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	sn := unpack(t, s,
		layer(t,
			folder("./").with(func(h *tar.Header) { h.Mode = 0o711 }),
			folder("a/").with(func(h *tar.Header) {
				h.Uid, h.Gid, h.Mode = 5, 6, 0o2750
				h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y", "SCHILY.xattr.user.overlay.opaque": "y"}
			}),
			folder("usr/"), symlink("bin", "usr"), file("old", "old"),
			file("twice", "1"), file("twice", "two"),
		),
		layer(t, file("a/b", "b"), file("bin/x", "x"), hardlink("new", "old"),
			symlink("l", "b").with(func(h *tar.Header) { h.Uid = 7 }),
			file("cap", "c").with(func(h *tar.Header) {
				h.Uid, h.Mode = 8, 0o4755
				h.PAXRecords = map[string]string{
					"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.security.selinux": "x",
					"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.bogus.name": "z",
				}
			}),
		))
	want := []string{
		`"." 040711 0:0 1700000000.123456789`,
		`"a" 042750 5:6 1700000000.123456789 user.x="y"`,
		`"a/b" 100644 0:0 1700000000.123456789 1 ` + short("b"),
		`"bin" 120777 0:0 1700000000.123456789 -> usr`,
		`"cap" 104755 8:0 1700000000.123456789 1 ` + short("c") + fmt.Sprintf(" security.capability=%q", capability),
		`"l" 120777 7:0 1700000000.123456789 -> b`,
		`"new" 100644 0:0 1700000000.123456789 3 ` + short("old"),
		`"old" 100644 0:0 1700000000.123456789 3 ` + short("old"),
		`"twice" 100644 0:0 1700000000.123456789 3 ` + short("two"),
		`"usr" 040755 0:0 1700000000.123456789`,
		`"usr/x" 100644 0:0 1700000000.123456789 1 ` + short("x"),
		`["new" "old"] are one file`,
	}
	sameTree(t, "tree", viewed(t, s, sn), want)
	wantNames(t, "diff", tarNames(t, readDiff(t, sn)), "a/", "a/b", "cap", "l -> b", "new", "usr/", "usr/x")
}

// TestUnpackLinks looks at what the entries of hard links do to their files, and at the
// snapshot below them, which stays as it is.
func TestUnpackLinks(t *testing.T) {
	needMounts(t)
	given := func(e entry, uid int) entry {
		return e.with(func(h *tar.Header) {
			h.Uid, h.Mode, h.ModTime = uid, 0o4711, someTime.Add(time.Second)
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "y"}
		})
	}
	for _, snapshotter := range []snapshot.Snapshotter{snapshot.Overlay, snapshot.Copy} {
		t.Run(string(snapshotter), func(t *testing.T) {
			s := openStoreWith(t, t.TempDir(), snapshot.Options{Snapshotter: snapshotter})
			base := layer(t, file("a", "a"), file("b", "b"), hardlink("b2", "b"), file("c", "c"), symlink("l", "a"),
				file("theirs", "t").with(func(h *tar.Header) { h.Uid = 9 }))
			below := unpack(t, s, base)
			before := viewed(t, s, below)
			sn := unpack(t, s, base, layer(t,
				file("own", "own"), given(hardlink("own2", "own"), 5), given(hardlink("own3", "own2"), 6),
				hardlink("same", "c"), given(hardlink("d/e", "a"), 5), hardlink("f", "b"), given(hardlink("d/g", "f"), 7),
				given(hardlink("m", "l"), 8), hardlink("mine", "theirs"),
			))
			const plain, changed = " 100644 0:0 1700000000.123456789 ", " 104711 %d:0 1700000001.123456789 %d %s user.x=\"y\""
			sameTree(t, "tree", viewed(t, s, sn), []string{
				`"." 040755 0:0 0.000000000`,
				`"a"` + fmt.Sprintf(changed, 5, 1, short("a")),
				`"b"` + fmt.Sprintf(changed, 7, 1, short("b")),
				`"b2"` + plain + "1 " + short("b"),
				`"c"` + plain + "1 " + short("c"),
				`"d" 040755 0:0 0.000000000`,
				`"d/e"` + fmt.Sprintf(changed, 5, 1, short("a")),
				`"d/g"` + fmt.Sprintf(changed, 7, 1, short("b")),
				`"f"` + fmt.Sprintf(changed, 7, 1, short("b")),
				`"l" 120777 8:0 1700000000.123456789 -> a`,
				`"m" 120777 8:0 1700000000.123456789 -> a`,
				`"mine"` + plain + "1 " + short("t"),
				`"own"` + fmt.Sprintf(changed, 6, 3, short("own")),
				`"own2"` + fmt.Sprintf(changed, 6, 3, short("own")),
				`"own3"` + fmt.Sprintf(changed, 6, 3, short("own")),
				`"same"` + plain + "1 " + short("c"),
				`"theirs"` + plain + "1 " + short("t"),
				`["a" "d/e"] are one file`,
				`["b" "d/g" "f"] are one file`,
				`["c" "same"] are one file`,
				`["mine" "theirs"] are one file`,
				`["own" "own2" "own3"] are one file`,
			})
			sameTree(t, "below", viewed(t, s, below), before)
		})
	}
}

func short(s string) string { return digest.FromString(s).Encoded()[:12] }

// TestUnpackRefuses checks that a bad layer is named and leaves nothing behind.
func TestUnpackRefuses(t *testing.T) {
	needOwners(t)
	good := makeTar(t, file("a", strings.Repeat("a", 5000)))
	zipped := gzipped(t, good)
	encrypted := layerOf(good, zipped)
	encrypted.Blob.MediaType += "+encrypted"
	wrong := layerOf(good, zipped)
	wrong.DiffID = digest.FromString("else")
	failing := layerOf(good, zipped)
	failing.Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(zipped), errReader{errVerify})), nil
	}
	for _, c := range []struct {
		name  string
		layer snapshot.Layer
		want  string
	}{
		{"wrong DiffID", wrong, "the image says DiffID " + wrong.DiffID.String()},
		{"cut gzip", layerOf(good, zipped[:len(zipped)-9]), "unexpected EOF"},
		{"cut in a header", layerOf(good, zipped[:5]), "unexpected EOF"},
		{"cut tar", layerOf(good[:2000], good[:2000]), "unexpected EOF"},
		{"cut zstd", layerOf(good, zstded(t, good)[:20]), "unexpected EOF"},
		{"bytes after the end", layerOf(good, append(slices.Clone(zipped), "junk that follows"...)), "gzip: invalid header"},
		{"reader that verifies", failing, errVerify.Error()},
		{"not a tar", layerOf([]byte(strings.Repeat("no tar ", 200)), []byte(strings.Repeat("no tar ", 200))), "invalid tar header"},
		{"encrypted", encrypted, "is encrypted"},
		{"no DiffID", snapshot.Layer{Blob: wrong.Blob}, "DiffID"},
		{"empty whiteout", layer(t, file("d/.wh.", "")), `extract "d/.wh."`},
		{"whiteout of dot", layer(t, file(".wh..", "")), `extract ".wh.."`},
		{"whiteout of dot dot", layer(t, file(".wh...", "")), `extract ".wh..."`},
		{"file in a whiteout", layer(t, file(".wh.a/b", "")), `".wh.a" is a whiteout`},
		{"hard link to a whiteout", layer(t, file(".wh.a", ""), hardlink("b", ".wh.a")), `".wh.a" is a whiteout`},
		{"hard link to nothing", layer(t, hardlink("b", "nothing")), `target "nothing": no such file`},
		{"hard link to a directory", layer(t, folder("d/"), hardlink("b", "d")), `target "d" is a directory`},
		{"hard link to inside itself", layer(t, folder("d/"), file("d/x", ""), hardlink("d", "d/x")), "below the link itself"},
		{"hard link to outside", layer(t, hardlink("b", "../../etc/passwd")), "leads out of the root"},
		{"outside", layer(t, file("../x", "")), `extract "../x": name leads out of the root`},
		{"outside in the middle", layer(t, file("a/../../x", "")), "leads out of the root"},
		{"file as a directory", layer(t, file("a", ""), file("a/b", "")), "not a directory"},
		{"link loop", layer(t, symlink("a", "b"), symlink("b", "a"), file("a/x", "")), "too many levels"},
		{"root is a file", layer(t, file("./", "").with(func(h *tar.Header) { h.Name = "." })), "the root is not a directory"},
		{"long name", layer(t, file(strings.Repeat("n", 300), "")), "file name too long"},
		{"long path", layer(t, file(strings.Repeat("d/", 2100)+"f", "")), "longer than"},
		{"negative owner", layer(t, file("a", "").with(func(h *tar.Header) { h.Uid = -1; h.Format = tar.FormatGNU })), "invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			_, err := s.Unpack(t.Context(), []snapshot.Layer{c.layer}, 1)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.layer.Blob.Digest.String()) {
				t.Errorf("error %q doesn't name the layer", err)
			}
			must(t, s.Close())
			nothingLeft(t, dir)
		})
	}
}

var errVerify = errors.New("digest is another")

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// nothingLeft checks that the closed store in dir holds no snapshot or temporary.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"tmp/*", "ids/*/snapshots/*", "ids/*/active/*", "ids/*/garbage/*", "ids/*/locks/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		must(t, err)
		for _, f := range found {
			if !strings.HasPrefix(filepath.Base(f), ".") {
				t.Errorf("left behind: %s", f)
			}
		}
	}
}

func TestUnpackMapsIDs(t *testing.T) {
	needMounts(t)
	if realRoot() {
		t.Skip("wants a user namespace")
	}
	s := openStore(t, t.TempDir())
	unpack(t, s, layer(t, file("last", "").with(func(h *tar.Header) { h.Uid, h.Gid = 65536, 65534 })))
	for what, e := range map[string]entry{
		"user ID 205001 is outside the IDs available here (0-65536): widen the range of this user in /etc/subuid": file("big/x", "").with(func(h *tar.Header) { h.Uid = 205001 }),
		"group ID 606400022": symlink("big/l", "x").with(func(h *tar.Header) { h.Gid = 606400022 }),
		`directory "dir"`:    folder("dir/").with(func(h *tar.Header) { h.Gid = 70000 }),
	} {
		_, err := s.Unpack(t.Context(), []snapshot.Layer{layer(t, e)}, 1)
		if err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), strings.TrimSuffix(e.Name, "/")) {
			t.Errorf("error %v, want %q and %q", err, what, e.Name)
		}
	}
}

// TestMadeAgain has a store with a layer of an earlier version, which may lack devices.
func TestMadeAgain(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	l := layer(t, file("a", ""), device("dev/null", tar.TypeChar, 1, 3))
	s, err := snapshot.Open(dir, snapshot.Options{})
	must(t, err)
	want := string(readDiff(t, unpack(t, s, l)))
	must(t, s.Close())
	found, err := filepath.Glob(dir + "/ids/*/snapshots/*")
	must(t, err)
	meta, err := os.ReadFile(found[0] + "/meta.json")
	must(t, err)
	earlier := bytes.Replace(meta, []byte(`"version":2`), []byte(`"version":1`), 1)
	must(t, os.WriteFile(found[0]+"/meta.json", earlier, 0o600), os.RemoveAll(found[0]+"/fs/dev"))
	s = openStore(t, dir)
	if got := string(readDiff(t, unpack(t, s, l))); got != want {
		t.Errorf("the layer has\n%q\nwant\n%q", got, want)
	}
}

// TestDevices wants devices in the layers of everybody, and those of a layer made of them.
func TestDevices(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	made := makeTar(t, device("dev/null", tar.TypeChar, 1, 3), device("mark", tar.TypeChar, 0, 0), device("sda", tar.TypeBlock, 8, 257))
	diff := readDiff(t, unpack(t, s, layerOf(made, made)))
	var got []string
	for name, h := range headers(t, bytes.NewReader(diff)) {
		got = append(got, fmt.Sprintf("%s %c %d:%d %o", name, h.Typeflag, h.Devmajor, h.Devminor, h.Mode))
	}
	slices.Sort(got)
	want := []string{"dev 5 0:0 755", "dev/null 3 1:3 600", "mark 3 0:0 600", "sda 4 8:257 600"}
	if !slices.Equal(got, want) {
		t.Errorf("the layer has %q, want %q", got, want)
	}
	if again := readDiff(t, unpack(t, s, layerOf(diff, diff))); !bytes.Equal(again, diff) {
		t.Error("a layer made of the layer is another")
	}
	if !realRoot() {
		return
	}
	sameTree(t, "tree", viewed(t, s, unpack(t, s, layer(t, device("null", tar.TypeChar, 1, 3))))[1:], []string{`"null" 020600 0:0 1700000000.123456789 1:3`})
}

func TestUnpackCompressions(t *testing.T) {
	needOwners(t)
	b := makeTar(t, file("a", "a"))
	padded := append(slices.Clone(b), make([]byte, 10240-len(b))...)
	s := openStore(t, t.TempDir())
	for name, l := range map[string]snapshot.Layer{
		"plain":  layerOf(b, b),
		"padded": layerOf(padded, gzipped(t, padded)),
		"zstd":   layerOf(makeTar(t, file("z", "z")), zstded(t, makeTar(t, file("z", "z")))),
		"in two members": layerOf(append(slices.Clone(b), 0, 0),
			append(gzipped(t, b), gzipped(t, []byte{0, 0})...)),
	} {
		if _, err := s.Unpack(t.Context(), []snapshot.Layer{l}, 1); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnpackNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	sn, err := s.Unpack(t.Context(), nil, 1)
	if sn != nil || err != nil {
		t.Errorf("got %v, %v", sn, err)
	}
}

// TestUnpackOnce unpacks overlapping images in two stores on one directory at
// once: each layer must be opened a single time.
func TestUnpackOnce(t *testing.T) {
	needOwners(t)
	dir := t.TempDir()
	stores := []*snapshot.Store{openStore(t, dir), openStore(t, dir)}
	const count = 12
	var opened [count]atomic.Int32
	layers := make([]snapshot.Layer, count)
	ids := make([]digest.Digest, count)
	for i := range layers {
		layers[i] = layer(t, file(fmt.Sprintf("shared/%d", i), strings.Repeat("x", 1000*i)), hardlink(fmt.Sprintf("l%d", i), "shared/0"))
		ids[i] = layers[i].DiffID
		open := layers[i].Open
		layers[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
			opened[i].Add(1)
			return open(ctx)
		}
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			n := 1 + rand.IntN(count)
			sn, err := stores[i%2].Unpack(t.Context(), layers[:n], 1+rand.IntN(3))
			if err != nil {
				t.Error(err)
				return
			}
			if want := identity.ChainID(slices.Clone(ids[:n])).Encoded(); sn.ID() != want {
				t.Errorf("ID %s, want %s", sn.ID(), want)
			}
		})
	}
	wg.Wait()
	for i := range opened {
		if n := opened[i].Load(); n > 1 {
			t.Errorf("layer %d was opened %d times", i, n)
		}
	}
}

func TestUnpackCancelled(t *testing.T) {
	needOwners(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	l := layer(t, file("a", "a"))
	blocked := l
	blocked.Open = func(ctx context.Context) (io.ReadCloser, error) {
		cancel(cause)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if _, err := s.Unpack(ctx, []snapshot.Layer{blocked, l}, 2); !errors.Is(err, cause) {
		t.Errorf("error %v", err)
	}
	must(t, s.Close())
	nothingLeft(t, dir)
}

func TestDiskFull(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"))
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	s, err := snapshot.Open(dir, snapshot.Options{})
	must(t, err)
	_, err = s.Unpack(t.Context(), []snapshot.Layer{layer(t, file("some/big", strings.Repeat("x", 4<<20)))}, 1)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "some/big") {
		t.Errorf("unpack: %v", err)
	}
	w, err := s.CreateBlob()
	must(t, err)
	if _, err := io.Copy(w, strings.NewReader(strings.Repeat("x", 4<<20))); !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("blob: %v", err)
	}
	must(t, w.Close(), s.Close())
	nothingLeft(t, dir)
}
