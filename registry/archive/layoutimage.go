package archive

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayoutImage names an image, or an index of images, in a directory that is an OCI
// image layout (image-spec v1.1). Without Tag and Digest it is the image tagged
// "latest", or else the only image.
type LayoutImage struct {
	Dir    string
	Tag    string        // as org.opencontainers.image.ref.name has it
	Digest digest.Digest // of the manifest or index; it wins over Tag
}

// ParseLayoutImage reads PATH[:TAG][@DIGEST]. It looks at no file.
func ParseLayoutImage(spec string) (*LayoutImage, error) {
	l := &LayoutImage{Dir: spec}
	if dir, dgst, ok := strings.Cut(spec, "@"); ok {
		l.Dir, l.Digest = dir, digest.Digest(dgst)
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("digest %q: %w", dgst, err)
		}
	}
	if i := strings.LastIndexByte(l.Dir, ':'); i > strings.LastIndexByte(l.Dir, '/') {
		l.Dir, l.Tag = l.Dir[:i], l.Dir[i+1:]
	}
	return l, nil
}

// String returns the name as a user writes it.
func (l *LayoutImage) String() string {
	s := "oci-layout://" + l.Dir
	if l.Tag != "" {
		s += ":" + l.Tag
	}
	if l.Digest != "" {
		s += "@" + l.Digest.String()
	}
	return s
}

// Resolve finds the image for a platform as [oci.Choose] does. All bytes are verified;
// layers are read, and verified, by [oci.Image.Blob]. The image has no Reference.
func (l *LayoutImage) Resolve(ctx context.Context, p ocispec.Platform) (*oci.Image, error) {
	k := l.keeper()
	root, err := l.root(ctx, k)
	if err != nil {
		return nil, err
	}
	return oci.Choose(ctx, k, root, p)
}

// ResolveArtifact is like Resolve but finds what [oci.ChooseArtifact] accepts.
func (l *LayoutImage) ResolveArtifact(ctx context.Context, p ocispec.Platform, configType string) (*oci.Image, error) {
	k := l.keeper()
	root, err := l.root(ctx, k)
	if err != nil {
		return nil, err
	}
	return oci.ChooseArtifact(ctx, k, root, p, configType)
}

func (l *LayoutImage) keeper() *keeper { return &keeper{directory(l.Dir), l.String()} }

// root reads the manifest or index.
func (l *LayoutImage) root(ctx context.Context, k *keeper) (*oci.Document, error) {
	want, err := l.find(k.files)
	if err != nil {
		return nil, k.Fail(oci.OpResolve, "", err)
	}
	return k.Manifest(ctx, want)
}

// find returns the descriptor of the manifest or index in index.json.
func (l *LayoutImage) find(in files) (ocispec.Descriptor, error) {
	if l.Digest != "" {
		return ocispec.Descriptor{Digest: l.Digest, Size: -1}, l.Digest.Validate()
	}
	index, err := in.open(ocispec.ImageIndexFile)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("no OCI image layout: %w", err)
	}
	defer func() { _ = index.Close() }() // only read
	entries, err := readEntries(index)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tag := l.Tag
	if tag == "" {
		tag = "latest"
	}
	for _, d := range entries {
		if name := d.Annotations[ocispec.AnnotationRefName]; name == tag || d.Annotations[annotationImageName] == tag {
			return d, oci.CheckDescriptor("image", d)
		}
	}
	other := func(d ocispec.Descriptor) bool { return d.Digest != entries[0].Digest }
	if l.Tag == "" && len(entries) > 0 && !slices.ContainsFunc(entries, other) {
		return entries[0], oci.CheckDescriptor("image", entries[0])
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: index.json has no image with tag %q: name one by :TAG or @DIGEST", oci.ErrNotFound, tag)
}
