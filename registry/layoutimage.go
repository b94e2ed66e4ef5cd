package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LayoutImage names an image, or an index of images, in a directory that is an
// OCI image layout (image-spec v1.1). Without Tag and Digest it is the one that
// is tagged "latest", else the only one there is.
type LayoutImage struct {
	Dir    string
	Tag    string        // as org.opencontainers.image.ref.name has it
	Digest digest.Digest // of the manifest or index; it wins over Tag

	members members // of an archive; nil: it is the directory
	name    string  // as the user wrote it; "": oci-layout://
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
	if l.name != "" {
		return l.name
	}
	s := "oci-layout://" + l.Dir
	if l.Tag != "" {
		s += ":" + l.Tag
	}
	if l.Digest != "" {
		s += "@" + l.Digest.String()
	}
	return s
}

// ResolveLayout finds the image that l names for a platform, as
// [Client.Resolve] does at a registry. All bytes are verified; layers are read,
// and verified, by [Image.Blob].
func ResolveLayout(ctx context.Context, l LayoutImage, p ocispec.Platform) (*Image, error) {
	root, err := l.find()
	if err != nil {
		return nil, l.fail("resolve", "", err)
	}
	doc, err := l.manifest(ctx, root.Digest.String(), root)
	if err != nil {
		return nil, err
	}
	im, err := choose(ctx, &l, doc, p, 0)
	if err != nil {
		return nil, err
	}
	im.Root, im.layout = doc.digest, &l
	return im, nil
}

// ResolveLayoutArtifact is [ResolveLayout] as [Client.ResolveArtifact] is
// [Client.Resolve].
func ResolveLayoutArtifact(ctx context.Context, l LayoutImage, p ocispec.Platform, configType string) (*Image, error) {
	root, err := l.find()
	if err != nil {
		return nil, l.fail("resolve", "", err)
	}
	doc, err := l.manifest(ctx, root.Digest.String(), root)
	if err != nil {
		return nil, err
	}
	im, err := chooseArtifact(ctx, &l, doc, p, configType)
	if err != nil {
		return nil, err
	}
	im.layout = &l
	return im, nil
}

// find returns what index.json says of the image.
func (l *LayoutImage) find() (ocispec.Descriptor, error) {
	if l.Digest != "" {
		return ocispec.Descriptor{Digest: l.Digest, Size: -1}, l.Digest.Validate()
	}
	index, err := l.file(ocispec.ImageIndexFile)
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
			return d, checkDescriptor("image", d)
		}
	}
	other := func(d ocispec.Descriptor) bool { return d.Digest != entries[0].Digest }
	if l.Tag == "" && len(entries) > 0 && !slices.ContainsFunc(entries, other) {
		return entries[0], checkDescriptor("image", entries[0])
	}
	return ocispec.Descriptor{}, fmt.Errorf("%w: index.json has no image with tag %q: name one by :TAG or @DIGEST", ErrNotFound, tag)
}

// manifest implements keeper.
func (l *LayoutImage) manifest(ctx context.Context, identifier string, want ocispec.Descriptor) (*document, error) {
	if want.Size > maxManifest {
		return nil, l.fail(opPullManifest, identifier, tooLarge(want.Size, maxManifest))
	}
	f, err := l.open(ctx, want.Digest)
	if err != nil {
		return nil, l.fail(opPullManifest, identifier, err)
	}
	defer func() { _ = f.Close() }() // only read
	body, err := readBounded(f, maxManifest)
	var doc *document
	if err == nil {
		doc, err = readDocument(http.Header{"Content-Type": {want.MediaType}}, body, want)
	}
	if err != nil {
		return nil, l.fail(opPullManifest, identifier, err)
	}
	return doc, nil
}

// config implements keeper.
func (l *LayoutImage) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	f, err := l.open(ctx, d.Digest)
	if err != nil {
		return nil, l.fail(opPullConfig, d.Digest.String(), err)
	}
	defer func() { _ = f.Close() }() // only read
	body, err := readBounded(f, maxConfig)
	if err == nil {
		err = verify(body, d)
	}
	if err == nil && !json.Valid(body) {
		err = errors.New("not JSON")
	}
	if err != nil {
		return nil, l.fail(opPullConfig, d.Digest.String(), err)
	}
	return body, nil
}

// reference implements keeper: no registry knows the image.
func (l *LayoutImage) reference(digest.Digest) string { return "" }

// fail implements keeper.
func (l *LayoutImage) fail(op, digest string, cause error) *Error {
	return &Error{Op: op, Reference: l.String(), Digest: digest, Err: cause}
}

// open opens a blob.
func (l *LayoutImage) open(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: digest %q: %w", ErrCorrupt, words.Line(d.String()), err)
	}
	f, err := l.file(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no blob %s", ErrNotFound, d)
	}
	return f, err
}

// file opens a file of the layout. A link in it leads nowhere out of it.
func (l *LayoutImage) file(name string) (io.ReadCloser, error) {
	if l.members != nil {
		return l.members.open(name)
	}
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read
	return root.Open(name)
}

// blob opens a blob whose reader verifies it, as that of a registry does.
func (l *LayoutImage) blob(ctx context.Context, op string, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := l.open(ctx, d.Digest)
	if err != nil {
		return nil, l.fail(op, d.Digest.String(), err)
	}
	return &layoutReader{file: f, ctx: ctx, layout: l, want: d, verifier: d.Digest.Verifier()}, nil
}

// layoutReader reads a blob of a layout.
type layoutReader struct {
	file     io.ReadCloser   // not embedded: a WriteTo would pass by the verifier
	ctx      context.Context //nolint:containedctx // of one blob, which the value stands for
	layout   *LayoutImage
	want     ocispec.Descriptor
	verifier digest.Verifier
	n        int64
}

// Read implements io.Reader.
func (r *layoutReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.file.Read(p)
	_, _ = r.verifier.Write(p[:n]) // a hash never fails
	r.n += int64(n)
	switch {
	case r.n > r.want.Size, errors.Is(err, io.EOF) && r.n < r.want.Size:
		return 0, r.layout.fail(OpPullBlob, r.want.Digest.String(), fmt.Errorf("%w: not %d bytes", ErrCorrupt, r.want.Size))
	case errors.Is(err, io.EOF) && !r.verifier.Verified():
		return 0, r.layout.fail(OpPullBlob, r.want.Digest.String(), fmt.Errorf("%w: its bytes have another digest", ErrCorrupt))
	}
	return n, err
}

// Close implements io.Closer.
func (r *layoutReader) Close() error { return r.file.Close() }
