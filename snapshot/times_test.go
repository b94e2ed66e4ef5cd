package snapshot_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"golang.org/x/sys/unix"
)

var epoch = time.Unix(1600000000, 0)

// headers returns the entries of a tar by name.
func headers(t *testing.T, r io.Reader) map[string]*tar.Header {
	t.Helper()
	found := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		must(t, err)
		found[strings.TrimSuffix(h.Name, "/")] = h
	}
}

// clamped returns the layer tar of sn with no time after the epoch.
func clamped(t *testing.T, sn *snapshot.Snapshot) []byte {
	t.Helper()
	r, err := sn.Diff(t.Context(), &epoch)
	must(t, err)
	b, err := io.ReadAll(r)
	must(t, err, r.Close())
	return b
}

// TestDiffClampsTimes: what is later than the limit gets it, to the nanosecond;
// what is earlier keeps its time, whatever the kind of file.
func TestDiffClampsTimes(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	root := a.Root()
	must(t, os.Mkdir(root+"/new", 0o755), os.Mkdir(root+"/old", 0o755), os.Symlink("x", root+"/link"), unix.Mkfifo(root+"/pipe", 0o600))
	for _, name := range []string{"/new/f", "/old/f", "/just", "/exact"} {
		write(t, root+name, "f")
	}
	early, just := epoch.Add(-time.Nanosecond), epoch.Add(time.Nanosecond)
	must(t, os.Chtimes(root+"/old/f", early, early), os.Chtimes(root+"/old", early, early),
		os.Chtimes(root+"/just", just, just), os.Chtimes(root+"/exact", epoch, epoch))
	sn, err := a.Commit()
	must(t, err)
	got := headers(t, bytes.NewReader(clamped(t, sn)))
	for name, want := range map[string]time.Time{
		"new": epoch, "new/f": epoch, "link": epoch, "pipe": epoch, "just": epoch, "exact": epoch, "old": early, "old/f": early,
	} {
		h := got[name]
		if h == nil || !h.ModTime.Equal(want) {
			t.Errorf("%s: got %+v, want the time %v", name, h, want)
		}
		if h != nil && want.Equal(epoch) && h.Format == tar.FormatPAX {
			t.Errorf("%s: a whole second needs no extended header", name)
		}
	}
	if h := headers(t, bytes.NewReader(readDiff(t, sn)))["just"]; !h.ModTime.Equal(just) {
		t.Errorf("without a limit: time %v, want %v", h.ModTime, just)
	}
}

// TestClampedDiffsAreEqual makes the same files in two stores, at other times and
// in another order on the disk.
func TestClampedDiffsAreEqual(t *testing.T) {
	needMounts(t)
	var diffs [][]byte
	for _, reversed := range []bool{false, true} {
		s := openStore(t, t.TempDir())
		a, err := s.Prepare(t.Context(), unpack(t, s, baseLayers(t)...))
		must(t, err)
		names := []string{"m", "a", "z", "d/new", "e/1", "e/2"}
		if reversed {
			slices.Reverse(names)
		}
		for i, name := range names {
			path := a.Root() + "/" + name
			write(t, path, name)
			at := epoch.Add(time.Duration(i+1) * time.Hour)
			must(t, os.Chtimes(path, at, at))
		}
		// The first name of the file differs too.
		first, second := a.Root()+"/hard1", a.Root()+"/hard2"
		if reversed {
			first, second = second, first
		}
		write(t, first, "hard")
		must(t, os.Link(first, second), os.Remove(a.Root()+"/f"))
		sn, err := a.Commit()
		must(t, err)
		diffs = append(diffs, clamped(t, sn))
	}
	if !bytes.Equal(diffs[0], diffs[1]) {
		t.Errorf("the layers differ: %v and %v", headers(t, bytes.NewReader(diffs[0])), headers(t, bytes.NewReader(diffs[1])))
	}
}

// TestDirectoryTouchedLater: whether a step that leaves a directory as it was
// shows in the layer must not depend on how much later it ran.
func TestDirectoryTouchedLater(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	must(t, os.Mkdir(a.Root()+"/d", 0o755), os.Chtimes(a.Root()+"/d", epoch.Add(time.Hour), epoch.Add(time.Hour)))
	parent, err := a.Commit()
	must(t, err)
	a, err = s.Prepare(t.Context(), parent)
	must(t, err)
	must(t, os.Chtimes(a.Root()+"/d", epoch.Add(2*time.Hour), epoch.Add(2*time.Hour)))
	sn, err := a.Commit()
	must(t, err)
	if got := headers(t, bytes.NewReader(clamped(t, sn))); len(got) != 0 {
		t.Errorf("got %v, want an empty layer", got)
	}
	wantNames(t, "without a limit", tarNames(t, readDiff(t, sn)), "d/")
}

// TestArchiveAtOneTime: with a time given every file has it, also older ones.
func TestArchiveAtOneTime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root+"/f", "f")
	must(t, os.Chtimes(root+"/f", time.Unix(5, 5), time.Unix(5, 5)))
	r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: root}, &epoch)
	must(t, err)
	h := headers(t, r)["f"]
	must(t, r.Close())
	if !h.ModTime.Equal(epoch) {
		t.Errorf("time %v, want %v", h.ModTime, epoch)
	}
}

// TestUserAttributes: as with containerd a layer has file capabilities and no
// other attribute; files that leave the build otherwise keep the user's too.
func TestUserAttributes(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	write(t, a.Root()+"/f", "f")
	must(t, unix.Setxattr(a.Root()+"/f", "user.note", []byte("a\x00b"), 0),
		unix.Setxattr(a.Root()+"/f", "security.capability", []byte(capability), 0))
	r, err := snapshot.Archive(t.Context(), snapshot.Tree{Root: a.Root()}, nil)
	must(t, err)
	whole := headers(t, r)["f"].PAXRecords
	must(t, r.Close())
	sn, err := a.Commit()
	must(t, err)
	layer := headers(t, bytes.NewReader(readDiff(t, sn)))["f"].PAXRecords
	if got := whole["SCHILY.xattr.user.note"]; got != "a\x00b" {
		t.Errorf("archive: user.note is %q", got)
	}
	if got, ok := layer["SCHILY.xattr.user.note"]; ok {
		t.Errorf("layer: user.note is %q", got)
	}
	for what, records := range map[string]map[string]string{"archive": whole, "layer": layer} {
		if records["SCHILY.xattr.security.capability"] != capability {
			t.Errorf("%s: capability %q", what, records["SCHILY.xattr.security.capability"])
		}
	}
}
