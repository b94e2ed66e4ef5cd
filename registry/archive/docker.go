package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	mediaTypeDockerLayerTar = "application/vnd.docker.image.rootfs.diff.tar"

	// packBlock is the size of the blocks that are compressed in parallel, in bytes.
	// Layers of builds use the same.
	packBlock = 1 << 20
)

// dockerEntry is an image in the manifest.json of docker's image format.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerImage is an image of a docker archive, which has neither a manifest nor,
// as a rule, compressed layers.
type dockerImage struct {
	files   members
	entry   dockerEntry
	config  []byte
	diffIDs []digest.Digest
}

// findDockerImage finds the image called ref. "" stands for the only image.
func findDockerImage(files members, ref string) (*dockerImage, error) {
	body, err := files.read(dockerManifestFile, oci.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("no docker archive: %w", err)
	}
	var entries []dockerEntry
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fmt.Errorf("%s: %w", dockerManifestFile, err)
	}
	i := &dockerImage{files: files}
	if i.entry, err = chooseEntry(entries, ref); err != nil {
		return nil, err
	}
	if i.config, err = files.read(path.Clean(i.entry.Config), oci.MaxConfig); err != nil {
		return nil, fmt.Errorf("the image's config: %w", err)
	}
	// The name is a digest, in docker's older format as well.
	said := digest.NewDigestFromEncoded(digest.SHA256, strings.TrimSuffix(path.Base(i.entry.Config), ".json"))
	if got := digest.FromBytes(i.config); said.Validate() == nil && got != said {
		return nil, fmt.Errorf("%w: the config %s has the digest %s", oci.ErrCorrupt, i.entry.Config, got)
	}
	all, err := oci.Layers(&ocispec.Manifest{Layers: make([]ocispec.Descriptor, len(i.entry.Layers))}, i.config)
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		i.diffIDs = append(i.diffIDs, l.DiffID)
	}
	return i, nil
}

func chooseEntry(entries []dockerEntry, ref string) (dockerEntry, error) {
	switch {
	case len(entries) == 0:
		return dockerEntry{}, fmt.Errorf("%w: it holds no image", oci.ErrNotFound)
	case ref == "" && len(entries) == 1:
		return entries[0], nil
	}
	wanted := ""
	if ref != "" {
		named, err := normalizeName(ref)
		if err != nil {
			return dockerEntry{}, err
		}
		wanted = reference.FamiliarString(named)
	}
	var there []string
	for _, e := range entries {
		for _, tag := range e.RepoTags {
			if named, err := normalizeName(tag); err == nil && reference.FamiliarString(named) == wanted {
				return e, nil
			}
			there = append(there, words.Line(tag))
		}
	}
	if wanted == "" {
		return dockerEntry{}, fmt.Errorf("it holds %d images: name one of them, as in docker-archive:FILE:REF; there are %s",
			len(entries), strings.Join(there, ", "))
	}
	return dockerEntry{}, fmt.Errorf("%w: it has no image %s; there are %s", oci.ErrNotFound, wanted, strings.Join(there, ", "))
}

// dockerLayout is an OCI image layout made of a docker archive. It is in memory, except
// for the layers, which are in the archive or in files without a name.
type dockerLayout struct {
	Options
	members
	packed         []*os.File
	gzipped, plain string // the media types of layers
}

// layout converts the image to an OCI image layout. Its layers stay as they are if the
// options say so; otherwise all are compressed and verified. The caller closes the
// layout, also after an error.
func (i *dockerImage) layout(ctx context.Context, o Options) (*dockerLayout, error) {
	l := &dockerLayout{
		Options: o, members: make(members),
		gzipped: ocispec.MediaTypeImageLayerGzip, plain: ocispec.MediaTypeImageLayer,
	}
	manifestType, configType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
	if o.DockerTypes {
		l.gzipped, l.plain = mediaTypeDockerLayer, mediaTypeDockerLayerTar
		manifestType, configType = oci.DockerManifest, oci.DockerConfig
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: manifestType,
		Config:    l.add(configType, i.config),
		Layers:    []ocispec.Descriptor{},
	}
	for n, name := range i.entry.Layers {
		content := i.files[path.Clean(name)]
		if content == nil {
			return l, fmt.Errorf("%w: its layer %s is missing", oci.ErrNotFound, words.Line(name))
		}
		d, err := l.layer(ctx, content, i.diffIDs[n])
		if err != nil {
			return l, fmt.Errorf("layer %s: %w", words.Line(name), err)
		}
		manifest.Layers = append(manifest.Layers, d)
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return l, err
	}
	index, err := encodeIndex([]ocispec.Descriptor{l.add(manifestType, body)})
	if err != nil {
		return l, err
	}
	l.put(ocispec.ImageIndexFile, index)
	return l, nil
}

// Close implements io.Closer.
func (l *dockerLayout) Close() error {
	var errs []error
	for _, f := range l.packed {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// add adds a blob that is in memory.
func (l *dockerLayout) add(mediaType string, body []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	l.put(blobPath(d.Digest), body)
	return d
}

// layer adds a layer. It compresses the layer first, unless it is compressed already or
// Keep is set.
func (l *dockerLayout) layer(ctx context.Context, content *io.SectionReader, diffID digest.Digest) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: l.plain, Digest: diffID}
	if isGzip(content) {
		var err error
		if d.Digest, err = digestOf(ctx, content, diffID, l.MaxUnpacked); err != nil {
			return d, err
		}
		d.MediaType = l.gzipped
	} else if !l.Keep {
		sum := digest.SHA256.Digester()
		f, err := spool(l.TempDir, func(w io.Writer) error {
			return pack(ctx, io.MultiWriter(w, sum.Hash()), content, diffID)
		})
		if err != nil {
			return d, err
		}
		l.packed = append(l.packed, f)
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return d, err
		}
		content = io.NewSectionReader(f, 0, size)
		d.MediaType, d.Digest = l.gzipped, sum.Digest()
	}
	d.Size = content.Size()
	l.members[blobPath(d.Digest)] = content
	return d, nil
}

// pack compresses a layer. A layer whose digest isn't diffID is an error.
func pack(ctx context.Context, w io.Writer, content *io.SectionReader, diffID digest.Digest) error {
	zw, err := pgzip.NewWriterLevel(w, pgzip.DefaultCompression)
	if err != nil {
		return err
	}
	if err := zw.SetConcurrency(packBlock, runtime.NumCPU()+1); err != nil {
		return err
	}
	return errors.Join(copyVerified(ctx, zw, io.NewSectionReader(content, 0, content.Size()), diffID), zw.Close())
}

// digestOf returns the digest of a layer that is compressed already. It is an error if
// the decompressed bytes don't have the digest diffID, or are more than limit.
func digestOf(ctx context.Context, content *io.SectionReader, diffID digest.Digest, limit int64) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	packed := io.TeeReader(io.NewSectionReader(content, 0, content.Size()), sum.Hash())
	zr, err := gzip.NewReader(packed)
	if err != nil {
		return "", err
	}
	if err := copyVerified(ctx, io.Discard, bounded.NewBudget(limit).Reader(zr), diffID); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, packed); err != nil { // bytes that the decompressor left
		return "", err
	}
	return sum.Digest(), nil
}

// copyVerified copies r to w. It is an error if the bytes don't have the digest want.
func copyVerified(ctx context.Context, w io.Writer, r io.Reader, want digest.Digest) error {
	verifier := want.Verifier()
	content := bounded.Reader(ctx, r, bounded.NoLimit)
	if _, err := io.CopyBuffer(io.MultiWriter(verifier, w), content, make([]byte, packBlock)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("%w: its bytes have another digest than %s, which the config names", oci.ErrCorrupt, want)
	}
	return nil
}
