package archive_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
)

// FuzzOpen reads archives that anybody may have made: reading ends, and what is read
// without an error is what its digests promise.
func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte("\x1f\x8b\x08"), true)
	a := registrytest.NewArchive(f, "app:1")
	for _, write := range []func(io.Writer) error{
		func(w io.Writer) error { return archive.WriteOCI(f.Context(), w, a) },
		func(w io.Writer) error { return archive.WriteDocker(f.Context(), w, a) },
	} {
		var b, packed bytes.Buffer
		zw := gzip.NewWriter(&packed)
		if err := errors.Join(write(io.MultiWriter(&b, zw)), zw.Close()); err != nil {
			f.Fatal(err)
		}
		for _, docker := range []bool{false, true} {
			f.Add(b.Bytes(), docker)
			f.Add(packed.Bytes(), docker)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, docker bool) {
		path := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(path, body, 0o600); err != nil {
			t.Fatal(err)
		}
		s := archive.Source{Image: archive.LayoutImage{Dir: path}, Name: path}
		if docker {
			s.Kind = archive.DockerArchive
		}
		r, err := archive.Open(t.Context(), s, archive.Options{TempDir: t.TempDir(), MaxUnpacked: 1 << 20})
		if err != nil {
			return
		}
		defer func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}()
		im, err := oci.Choose(t.Context(), r, r.Root, registrytest.AMD64)
		if err != nil {
			return
		}
		for _, l := range im.Layers {
			content, err := im.Blob(t.Context(), l.Descriptor)
			if err != nil {
				continue
			}
			got, err := io.ReadAll(content)
			if err == nil && (int64(len(got)) != l.Size || l.Digest.Algorithm().FromBytes(got) != l.Digest) {
				t.Errorf("layer %s has other bytes", l.Digest)
			}
			if err := content.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestOpenWritten opens what the package writes.
func TestOpenWritten(t *testing.T) {
	t.Parallel()
	a := registrytest.NewArchive(t, "app:1")
	for kind, write := range map[archive.Kind]func(*bytes.Buffer) error{
		archive.OCILayout:     func(b *bytes.Buffer) error { return archive.WriteOCI(t.Context(), b, a) },
		archive.DockerArchive: func(b *bytes.Buffer) error { return archive.WriteDocker(t.Context(), b, a) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := archive.Open(t.Context(), archive.Source{Kind: kind, Image: archive.LayoutImage{Dir: path}, Name: path}, archive.Options{TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		im, err := oci.Choose(t.Context(), r, r.Root, registrytest.AMD64)
		if err != nil || !bytes.Equal(im.Config, a.Images[0].Config) || len(im.Layers) != 3 || (r.DockerManifest != nil) != (kind == archive.DockerArchive) {
			t.Errorf("kind %d: %v, %v", kind, im, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
