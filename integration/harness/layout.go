package harness

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is an image read from an OCI layout, every digest and size checked.
type Image struct {
	Digest    digest.Digest // of the manifest
	Manifest  ocispec.Manifest
	Config    dockerspec.DockerOCIImage
	RawConfig []byte
	Layers    []Layer
}

// Pull copies ref to an OCI layout with skopeo and reads it. The caller owns
// nothing; the layout stays in the laboratory.
func (l *Lab) Pull(ctx context.Context, ref string) (*Image, error) {
	if err := Need("skopeo"); err != nil {
		return nil, err
	}
	dir, err := l.TempDir("pull")
	if err != nil {
		return nil, err
	}
	err = sh(ctx, "env", l.NoAuth(), "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
		"docker://"+ref, "oci:"+dir+":pulled")
	if err != nil {
		return nil, err
	}
	return ReadLayout(dir)
}

// ReadLayout reads the only image of the OCI layout in dir.
func ReadLayout(dir string) (*Image, error) {
	var index ocispec.Index
	body, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("read index of %s: %w", dir, err)
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("read index of %s: %d manifests", dir, len(index.Manifests))
	}
	image := &Image{Digest: index.Manifests[0].Digest}
	raw, err := readBlob(dir, index.Manifests[0])
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &image.Manifest); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if image.RawConfig, err = readBlob(dir, image.Manifest.Config); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(image.RawConfig, &image.Config); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if got, want := len(image.Config.RootFS.DiffIDs), len(image.Manifest.Layers); got != want {
		return nil, fmt.Errorf("image has %d layers but %d diff IDs", want, got)
	}
	for i, d := range image.Manifest.Layers {
		layer, err := readLayer(dir, d)
		if err != nil {
			return nil, fmt.Errorf("read layer %d: %w", i, err)
		}
		if layer.DiffID != image.Config.RootFS.DiffIDs[i] {
			return nil, fmt.Errorf("layer %d has diff ID %s but the config says %s", i, layer.DiffID, image.Config.RootFS.DiffIDs[i])
		}
		image.Layers = append(image.Layers, *layer)
	}
	return image, nil
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func readBlob(dir string, d ocispec.Descriptor) ([]byte, error) {
	body, err := os.ReadFile(blobPath(dir, d.Digest))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) != d.Size || digest.FromBytes(body) != d.Digest {
		return nil, fmt.Errorf("blob %s: %d bytes with digest %s, expected %d", d.Digest, len(body), digest.FromBytes(body), d.Size)
	}
	return body, nil
}

func readLayer(dir string, d ocispec.Descriptor) (*Layer, error) {
	f, err := os.Open(blobPath(dir, d.Digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	blobSum := digest.Canonical.Digester()
	counted := &counter{r: io.TeeReader(f, blobSum.Hash())}
	buffered := bufio.NewReader(counted)
	plain, err := decompress(buffered, d.MediaType)
	if err != nil {
		return nil, err
	}
	tarSum := digest.Canonical.Digester()
	tee := io.TeeReader(plain, tarSum.Hash())
	layer := &Layer{Descriptor: d}
	if layer.Entries, err = readEntries(tee); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil { // what follows the end marker counts too
		return nil, err
	}
	if rest, err := io.Copy(io.Discard, buffered); err != nil || rest > 0 {
		return nil, fmt.Errorf("%d bytes after the compressed stream: %w", rest, err)
	}
	layer.DiffID = tarSum.Digest()
	if blobSum.Digest() != d.Digest || counted.n != d.Size {
		return nil, fmt.Errorf("blob %s: %d bytes with digest %s, expected %d", d.Digest, counted.n, blobSum.Digest(), d.Size)
	}
	return layer, nil
}

func decompress(r *bufio.Reader, mediaType string) (io.Reader, error) {
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		z, err := gzip.NewReader(r)
		return z, err
	case strings.HasSuffix(mediaType, "zstd"):
		z, err := zstd.NewReader(r)
		return z, err
	case strings.HasSuffix(mediaType, "tar"):
		return r, nil
	}
	return nil, fmt.Errorf("media type %q: no such layer", mediaType)
}

// ReadTar reads the files of an archive.
func ReadTar(r io.Reader) (Tree, error) {
	entries, err := readEntries(r)
	if err != nil {
		return nil, err
	}
	return Flatten([]Layer{{Entries: entries}})
}

func readEntries(r io.Reader) ([]Entry, error) {
	var entries []Entry
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, err
		}
		e := Entry{
			Name: h.Name, Type: h.Typeflag, Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid, Link: h.Linkname,
			Major: h.Devmajor, Minor: h.Devminor, ModTime: h.ModTime, Xattrs: map[string]string{},
		}
		for key, value := range h.PAXRecords {
			if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				e.Xattrs[attr] = value
			}
		}
		if h.Typeflag == tar.TypeReg {
			sum := sha256.New()
			if e.Size, err = io.Copy(sum, archive); err != nil {
				return nil, fmt.Errorf("read %s: %w", h.Name, err)
			}
			e.Sum = hex.EncodeToString(sum.Sum(nil))
		}
		entries = append(entries, e)
	}
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
