package filecopy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// archive makes a tar of the headers; a regular file's content is its Linkname.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.ModTime, h.Format = stamp, tar.FormatPAX
		}
		must(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, content)
		must(t, err)
	}
	must(t, w.Close())
	return out.Bytes()
}

func TestUnpackContext(t *testing.T) {
	t.Parallel()
	plain := archive(t,
		tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "of git archive"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o700},
		tar.Header{Typeflag: tar.TypeDir, Name: "closed/", Mode: 0o500},
		tar.Header{Typeflag: tar.TypeReg, Name: "closed/f", Linkname: "first", Mode: 0o600, Uid: 12345},
		tar.Header{Typeflag: tar.TypeReg, Name: "./closed/f", Linkname: "second", Mode: 0o4711},
		tar.Header{Typeflag: tar.TypeReg, Name: "implicit/parent/g", Linkname: "g", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "closed/f"},
		tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "./closed/f"},
		tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeReg, Name: "/absolute", Linkname: "a", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeReg, Name: "../../dots", Linkname: "d", Mode: 0o644},
	)
	want := []string{
		"absolute=a", "closed/", "closed/f=second", "dots=d", "hard=second", "implicit/", "implicit/parent/",
		"implicit/parent/g=g", "link -> closed/f",
	}
	compressed := map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
		"none": nil,
	}
	for name, compress := range compressed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := bytes.NewBuffer(plain)
			if compress != nil {
				in = &bytes.Buffer{}
				w, err := compress(in)
				must(t, err)
				_, err = w.Write(plain)
				must(t, err)
				must(t, w.Close())
			}
			dir := t.TempDir()
			must(t, filecopy.UnpackContext(t.Context(), in, dir, nil))
			if got := list(t, dir); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for path, want := range map[string]string{"closed": "0500 stamp", "closed/f": "4711 stamp", "link": "0777 stamp"} {
				m := strings.Fields(meta(t, filepath.Join(dir, path)))
				if got := m[0] + " " + m[2]; got != want {
					t.Errorf("%s is %s, want %s", path, got, want)
				}
			}
			var f, hard unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, "closed/f"), &f))
			must(t, unix.Stat(filepath.Join(dir, "hard"), &hard))
			if f.Ino != hard.Ino {
				t.Error("the hard link is another file")
			}
			must(t, os.Chmod(filepath.Join(dir, "closed"), 0o700)) // for its removal
		})
	}
}

// TestUnpackContextHostile tables archives that want to write elsewhere.
func TestUnpackContextHostile(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string]func(outside string) []tar.Header{
		"through absolute link": func(outside string) []tar.Header {
			return []tar.Header{
				{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside},
				{Typeflag: tar.TypeReg, Name: "l/f", Linkname: "bad", Mode: 0o644},
			}
		},
		"through relative link": func(outside string) []tar.Header {
			return []tar.Header{
				{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../" + filepath.Base(outside)},
				{Typeflag: tar.TypeReg, Name: "l/f", Linkname: "bad", Mode: 0o644},
			}
		},
		"directory through link": func(outside string) []tar.Header {
			return []tar.Header{
				{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside},
				{Typeflag: tar.TypeDir, Name: "l/d", Mode: 0o755},
			}
		},
		"hard link to outside": func(outside string) []tar.Header {
			return []tar.Header{
				{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside},
				{Typeflag: tar.TypeLink, Name: "h", Linkname: "l/f"},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := build(t, "outside/f=kept", "in/")
			outside := filepath.Join(parent, "outside")
			in := bytes.NewReader(archive(t, headers(outside)...))
			if err := filecopy.UnpackContext(t.Context(), in, filepath.Join(parent, "in"), nil); err == nil {
				t.Error("no error")
			}
			if got := list(t, outside); !slices.Equal(got, []string{"f=kept"}) {
				t.Errorf("outside is now %q", got)
			}
		})
	}
	for name, in := range map[string][]byte{
		"no archive": []byte(strings.Repeat("no archive ", 100)),
		"truncated":  archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "f", Linkname: "content", Mode: 0o644})[:515],
		"bad gzip":   {0x1f, 0x8b, 0, 0},
	} {
		if err := filecopy.UnpackContext(t.Context(), bytes.NewReader(in), t.TempDir(), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := filecopy.UnpackContext(ctx, bytes.NewReader(nil), t.TempDir(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestUnpackHook checks what ADD's hook is asked and told.
func TestUnpackHook(t *testing.T) {
	t.Parallel()
	src := build(t, "a.tar=TAR one", "b.tar=TAR two", "plain=text", "l -> a.tar", "d/c.tar=TAR three", "empty=")
	tree := open(t, src)
	for _, tt := range []struct {
		source string
		dest   string
		want   []string
	}{
		{"a.tar", "/x", []string{"there/", "x/", "x/unpacked=TAR one"}},
		{"a.tar", "/link", []string{"there/", "there/unpacked=TAR one"}},
		{"l", "/x/", []string{"there/", "x/", "x/unpacked=TAR one"}},
		{"plain", "/x", []string{"there/", "x=text"}},
		{"empty", "/x", []string{"there/", "x="}},
		{"[bp]*", "/x", []string{"there/", "x/", "x/plain=text", "x/unpacked=TAR two"}},
		{"d", "/x", []string{"there/", "x/", "x/c.tar=TAR three"}},
	} {
		root := build(t, "there/")
		add(t, root, "link -> there")
		o := filecopy.Options{Owner: self(), Unpack: &filecopy.Unpack{
			IsArchive: func(header []byte) bool { return bytes.HasPrefix(header, []byte("TAR")) },
			Extract: func(_ context.Context, in, dir string, r io.Reader) error {
				if in != root || !filepath.IsAbs(dir) {
					t.Errorf("Extract into %q of %q", dir, in)
				}
				content, err := io.ReadAll(r)
				must(t, err)
				return os.WriteFile(filepath.Join(in, dir, "unpacked"), content, 0o644)
			},
		}}
		must(t, pick(t, tree, tt.source).CopyTo(t.Context(), root, tt.dest, o))
		must(t, os.Remove(filepath.Join(root, "link")))
		if got := list(t, root); !slices.Equal(got, tt.want) {
			t.Errorf("%q to %s: got %q, want %q", tt.source, tt.dest, got, tt.want)
		}
		o.Unpack.Extract = func(context.Context, string, string, io.Reader) error { return io.ErrUnexpectedEOF }
		err := pick(t, tree, "a.tar").CopyTo(t.Context(), t.TempDir(), "/y", o)
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "a.tar") {
			t.Errorf("failing Extract: %v", err)
		}
	}
}

// TestUnpackMadeDirectories checks that --chmod is for none of the directories
// made for an archive.
func TestUnpackMadeDirectories(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	o := filecopy.Options{Owner: self(), Mode: chmod(t, "0500"), Unpack: &filecopy.Unpack{
		IsArchive: func([]byte) bool { return true },
		Extract:   func(context.Context, string, string, io.Reader) error { return nil },
	}}
	must(t, pick(t, open(t, build(t, "a.tar")), "a.tar").CopyTo(t.Context(), root, "/p/q", o))
	for _, made := range []string{"p", "p/q"} {
		fi, err := os.Stat(filepath.Join(root, made))
		must(t, err)
		if fi.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v", made, fi.Mode())
		}
	}
}
