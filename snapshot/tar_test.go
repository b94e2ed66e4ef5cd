package snapshot_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

// entry is an entry of a tar.
type entry struct {
	tar.Header

	body string
}

var someTime = time.Unix(1700000000, 123456789)

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: someTime}, body}
}

func folder(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: someTime}}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: someTime}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o644, ModTime: someTime}}
}

func device(name string, kind byte, major, minor int64) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o600, Devmajor: major, Devminor: minor, ModTime: someTime}}
}

// with returns e changed by f.
func (e entry) with(f func(h *tar.Header)) entry {
	f(&e.Header)
	return e
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Size = int64(len(e.body))
		if h.ModTime.Nanosecond() != 0 {
			h.Format = tar.FormatPAX
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("header %q: %v", h.Name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// layerOf returns the layer of an uncompressed tar whose blob is as given.
func layerOf(uncompressed, blob []byte) snapshot.Layer {
	return snapshot.Layer{
		Blob:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))},
		DiffID: digest.FromBytes(uncompressed),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(blob)), nil
		},
	}
}

func layer(t testing.TB, entries ...entry) snapshot.Layer {
	t.Helper()
	b := makeTar(t, entries...)
	return layerOf(b, gzipped(t, b))
}

func openStore(t testing.TB, dir string) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(dir, snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func unpack(t testing.TB, s *snapshot.Store, layers ...snapshot.Layer) *snapshot.Snapshot {
	t.Helper()
	sn, err := s.Unpack(t.Context(), layers, 4)
	if err != nil {
		t.Fatal(err)
	}
	return sn
}

func readDiff(t testing.TB, sn *snapshot.Snapshot) []byte {
	t.Helper()
	r, err := sn.Diff(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// tarNames returns the names in a tar, links with their targets.
func tarNames(t testing.TB, b []byte) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		n := h.Name
		if h.Linkname != "" {
			n += " -> " + h.Linkname
		}
		names = append(names, n)
	}
}

func wantNames(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot\n\t%s\nwant\n\t%s", what, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// viewed mounts sn and returns what list finds there.
func viewed(t testing.TB, s *snapshot.Store, sn *snapshot.Snapshot) []string {
	t.Helper()
	v, err := s.View(t.Context(), sn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	return list(t, v.Root())
}

// list describes all there is below root, one line each, root itself included.
func list(t testing.TB, root string) []string {
	t.Helper()
	type inode struct{ dev, ino uint64 }
	links := map[inode][]string{}
	var out []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%q %06o %d:%d %d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %s", len(b), digest.FromBytes(b).Encoded()[:12])
			if st.Nlink > 1 {
				id := inode{st.Dev, st.Ino}
				links[id] = append(links[id], rel)
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		out = append(out, line+xattrsOf(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range links {
		if len(names) > 1 {
			out = append(out, fmt.Sprintf("%q", names)+" are one file")
		}
	}
	sort.Strings(out)
	return out
}

func xattrsOf(t testing.TB, path string) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, b)
	if errors.Is(err, unix.ENOTSUP) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for name := range strings.SplitSeq(string(b[:n]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		v := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf(" %s=%q", name, v[:n]))
	}
	sort.Strings(out)
	return strings.Join(out, "")
}

// names returns the names in what list returned.
func names(t testing.TB, list []string) []string {
	t.Helper()
	var out []string
	for _, l := range list {
		if n, err := strconv.QuotedPrefix(l); err == nil {
			n, err = strconv.Unquote(n)
			must(t, err)
			out = append(out, n)
		}
	}
	return out
}

func sameTree(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%s: unexpected %s", what, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%s: missing    %s", what, l)
		}
	}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// capability is a file capability of revision 2: cap_net_bind_service=ep.
var capability = string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
