package filecopy_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
)

// image is what every root of TestArchivesAsBuildKit holds.
const image = `dir d 750 25:26; file f 640 23:24; dir e 750 25:26; file e/ef 640 23:24; link dl 777 7:8 d;
	link dabs 777 7:8 /d; link dang 777 7:8 gone/deep; file df 640 23:24; file img 640 23:24; file d/img 640 23:24`

// TestArchivesAsBuildKit unpacks archives of which the entries meet what is there or
// lead elsewhere. The rows of testdata/archives.txt were written down from BuildKit
// v0.34.2. They hold the destination, with the owner of --chown; what the image has
// besides [image]; the entries of the archive; what becomes of the image; and, where
// that is something else, what BuildKit makes of it. Entry n has the time tn, which is
// told only where a file has it.
func TestArchivesAsBuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	table, err := os.ReadFile("testdata/archives.txt")
	must(t, err)
	dir := t.TempDir()
	for n, row := range strings.Split(strings.TrimSpace(string(table)), "\n") {
		column := strings.Split(row, " | ")
		if len(column) < 4 {
			t.Fatalf("row %d has %d columns", n+1, len(column))
		}
		root, src := filepath.Join(dir, itoa(n)), filepath.Join(dir, itoa(n)+"-src")
		must(t, os.MkdirAll(root, 0o755))
		must(t, os.Mkdir(src, 0o755))
		for _, e := range append(archiveEntries(t, image), archiveEntries(t, column[1])...) {
			place(t, root, e)
		}
		must(t, os.WriteFile(filepath.Join(src, "a.tar"), tarOf(t, archiveEntries(t, column[2])), 0o644))
		before := described(t, root)
		got := "fails"
		if err := unpackTo(t.Context(), src, root, column[0]); err == nil {
			got = changes(before, described(t, root))
		}
		if got != column[3] {
			t.Errorf("row %d: ADD to %s | image: %s | archive: %s\ngot  %s\nwant %s", n+1, column[0], column[1], column[2], got, column[3])
		}
	}
}

// unpackTo does what the executor does for ADD of a.tar.
func unpackTo(ctx context.Context, src, root, to string) (err error) {
	tree, err := filecopy.OpenDir(src, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	s, err := tree.Select(ctx, filecopy.Source{Path: "a.tar"})
	if err != nil {
		return err
	}
	dest, chown, owned := strings.Cut(to, " ")
	var owner snapshot.Owner
	var o snapshot.ExtractOptions
	if owned {
		if _, err := fmt.Sscanf(chown, "%d:%d", &owner.UID, &owner.GID); err != nil {
			return err
		}
		o.Owner = &owner
	}
	return s.CopyTo(ctx, root, dest, filecopy.Options{
		Owner: &filecopy.Owner{UID: uint32(owner.UID), GID: uint32(owner.GID)},
		Unpack: &filecopy.Unpack{
			IsArchive: snapshot.IsArchive,
			Extract: func(ctx context.Context, root, dir string, r io.Reader) error {
				return snapshot.Extract(ctx, root, dir, r, o)
			},
		},
	})
}

// archiveEntries reads entries of the form "type name mode uid:gid [target]". A word
// "key=value" in the target's place is a PAX record.
func archiveEntries(t *testing.T, list string) []tar.Header {
	t.Helper()
	var all []tar.Header
	kinds := map[string]byte{"file": tar.TypeReg, "dir": tar.TypeDir, "link": tar.TypeSymlink, "hard": tar.TypeLink, "fifo": tar.TypeFifo, "cont": tar.TypeCont}
	for text := range strings.SplitSeq(list, ";") {
		word := append(strings.Fields(text), "")
		if word[0] == "-" {
			continue
		}
		h := tar.Header{Typeflag: kinds[word[0]], Name: strings.Trim(word[1], `"`), Linkname: word[4]}
		_, err := fmt.Sscanf(word[2]+" "+word[3], "%o %d:%d", &h.Mode, &h.Uid, &h.Gid)
		must(t, err)
		if key, value, ok := strings.Cut(word[4], "="); ok {
			h.Linkname, h.PAXRecords = "", map[string]string{key: value}
		}
		if h.Typeflag == 0 {
			t.Fatalf("no type of entry %q", text)
		}
		all = append(all, h)
	}
	return all
}

// tarOf makes a tar of the entries. A file holds its name.
func tarOf(t *testing.T, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n, h := range entries {
		h.ModTime = time.Unix(firstTime+int64(n), 0)
		text := ""
		if h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont {
			text = "new " + h.Name
		}
		h.Size = int64(len(text))
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, text)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// firstTime is that of the first entry, in seconds since 1970.
const firstTime = 1e9

// place makes what h says below root.
func place(t *testing.T, root string, h tar.Header) {
	t.Helper()
	name := filepath.Join(root, h.Name)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	switch h.Typeflag {
	case tar.TypeDir:
		must(t, os.MkdirAll(name, 0o755))
	case tar.TypeSymlink:
		must(t, os.Symlink(h.Linkname, name))
		must(t, os.Lchown(name, h.Uid, h.Gid))
		return
	case tar.TypeLink:
		must(t, os.Link(filepath.Join(root, h.Linkname), name))
		return
	case tar.TypeFifo:
		must(t, unix.Mkfifo(name, 0o644))
	default:
		must(t, os.WriteFile(name, []byte("old "+h.Name), 0o644))
	}
	must(t, os.Lchown(name, h.Uid, h.Gid))
	must(t, unix.Chmod(name, uint32(h.Mode)))
}

// described lists what is in root: a line for each name, which it begins with.
func described(t *testing.T, root string) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	must(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err = errors.Join(err, unix.Lstat(name, &st)); err != nil {
			return err
		}
		line := "/" + strings.TrimPrefix(strings.TrimPrefix(name, root), "/") + " "
		path := strings.TrimSpace(line)
		mode := fmt.Sprintf(" %04o", st.Mode&0o7777)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line += "dir"
		case unix.S_IFLNK:
			to, err := os.Readlink(name)
			must(t, err)
			line, mode = line+"link "+strconv.Quote(to), ""
		case unix.S_IFIFO:
			line += "fifo"
		default:
			text, err := os.ReadFile(name)
			must(t, err)
			line += "file " + strconv.Quote(string(text))
		}
		line += fmt.Sprintf("%s %d:%d", mode, st.Uid, st.Gid)
		if n := st.Mtim.Sec - firstTime; n >= 0 && n < 100 {
			line += fmt.Sprintf(" t%d", n)
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if other, ok := first[st.Ino]; ok {
				line += " =" + other
			} else {
				first[st.Ino] = path
			}
		}
		for _, key := range []string{"user.a", "security.capability"} {
			value := make([]byte, 64)
			if n, err := unix.Lgetxattr(name, key, value); err == nil {
				line += fmt.Sprintf(" %s=%q", key, value[:n])
			}
		}
		lines = append(lines, line)
		return nil
	}))
	return lines
}

// changes tells two lists apart: what is new or otherwise, then what is gone.
func changes(before, after []string) string {
	var out []string
	for _, line := range after {
		if !slices.Contains(before, line) {
			out = append(out, line)
		}
	}
	for _, line := range before {
		name, _, _ := strings.Cut(line, " ")
		if !slices.ContainsFunc(after, func(l string) bool { return strings.HasPrefix(l, name+" ") }) {
			out = append(out, name+" gone")
		}
	}
	if out == nil {
		return "nothing"
	}
	return strings.Join(out, "; ")
}
