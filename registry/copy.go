package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

const (
	opCopy      = "copy"
	defaultJobs = 4
	// maxDocuments bounds the manifests in the indexes of one copy, bytes.
	maxDocuments = 64 << 20
)

// CopyOptions say how [Client.Copy] copies. The zero value copies everything.
type CopyOptions struct {
	// Platform picks one image of an index. nil copies the index with all of
	// its images; a docker archive holds one image, that of this machine then.
	Platform *ocispec.Platform
	// Also are further references to push to when the destination is at a
	// registry.
	Also []string
	// Jobs bounds the blobs that move at once; 0 is 4.
	Jobs int
	// TempDir is where layers of docker archives are while they are compressed
	// and sent; "" is the system's directory for that.
	TempDir string
	// MaxUnpacked is what an archive that is compressed, or a layer in a docker
	// archive, may have uncompressed, in bytes; 0 has no bound.
	MaxUnpacked int64
	// Moving, if set, is told of each blob whose bytes begin to move. It may be
	// called concurrently.
	Moving func(ocispec.Descriptor)
}

// Copy copies the image, index or artifact at src to dst and returns what it is
// there: its manifest, byte for byte that of src. These are places:
//
//   - [docker://]REFERENCE: at a registry
//   - oci:PATH[:TAG][@DIGEST]: in an OCI image layout, a directory or a tar; one
//     that is made is a tar if PATH ends in .tar. oci-archive: is always one
//   - docker-archive:FILE[:REFERENCE]: in a tar of docker save
//   - a path that begins with / or ./ or ../, or ends in .tar, .tar.gz or .tgz
//     (src only): either of these
//
// Blobs that a registry has are left alone, those that it has in another
// repository are mounted; all others go straight from src to dst, verified. Every
// manifest comes after what it names, the one that gets the tag last: after an
// error the tag is what it was. Layers that are at a URL of their own (of a
// foreign or non-distributable type) are not copied, as the image-spec wants; nor
// is what a manifest's subject refers to, or what refers to the image.
//
// In a layout that is a directory other images stay; an archive is made anew.
//
// A docker archive has no manifest and its layers are not compressed. It becomes
// an image with docker's media types at a registry, with OCI's in a layout, and
// with layers compressed by gzip. An image for a docker archive loses its manifest.
func (c *Client) Copy(ctx context.Context, src, dst string, o CopyOptions) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	from, err := parsePlace(src)
	if err != nil {
		return none, err
	}
	to := make([]*place, 0, 1+len(o.Also))
	for _, one := range append([]string{dst}, o.Also...) {
		p, err := parseDestination(one)
		if err != nil {
			return none, err
		}
		to = append(to, p)
		if len(to) > 1 && (p.kind != inRegistry || to[0].kind != inRegistry) {
			return none, fmt.Errorf("%s: several destinations have to be at registries", one)
		}
	}
	s, err := c.open(ctx, from, sourceOptions{temp: o.TempDir, limit: o.MaxUnpacked, docker: to[0].kind == inRegistry})
	if err != nil {
		return none, err
	}
	root, err := c.transfer(ctx, s, to, o)
	if err := errors.Join(err, s.Close()); err != nil {
		return none, err
	}
	return ocispec.Descriptor{MediaType: root.mediaType, Digest: root.digest, Size: int64(len(root.body))}, nil
}

// parseDestination reads the name of a place that can be written to.
func parseDestination(s string) (*place, error) {
	p, err := parsePlace(s)
	switch {
	case err != nil:
		return nil, err
	case p.kind == inFile:
		return nil, fmt.Errorf("%s: say what to make of it: oci:%[1]s or docker-archive:%[1]s", s)
	case p.kind == inLayout && p.layout.Digest != "":
		return nil, fmt.Errorf("%s: the digest is the image's, leave it out", s)
	}
	return p, nil
}

// transfer copies s to all of to, and returns what was copied.
func (c *Client) transfer(ctx context.Context, s *source, to []*place, o CopyOptions) (*document, error) {
	if to[0].kind == inDockerArchive {
		return s.writeDocker(ctx, to[0], o)
	}
	if o.Platform != nil {
		im, err := s.pick(ctx, *o.Platform)
		if err != nil {
			return nil, err
		}
		s.root = im.document()
	}
	g := &cargo{source: s, options: o, seen: make(map[digest.Digest]bool)}
	if err := g.gather(ctx, s.root, 0); err != nil {
		return nil, err
	}
	for _, d := range g.foreign {
		c.notice(fmt.Sprintf("layer %s is not copied: it stays at %s", d.Digest, words.Line(strings.Join(d.URLs, ", "))))
	}
	if to[0].kind == inLayout {
		return s.root, g.write(ctx, to[0])
	}
	return s.root, g.push(ctx, c, to)
}

// pick returns the image for p, which even a manifest named directly has to be.
func (s *source) pick(ctx context.Context, p ocispec.Platform) (*Image, error) {
	return choose(ctx, s, s.root, p, 1)
}

func (i *Image) document() *document {
	return &document{digest: i.Digest, mediaType: i.MediaType, body: i.Raw}
}

// cargo is all that is to be copied.
type cargo struct {
	source  *source
	options CopyOptions

	documents []*document // each after those it names: the root is last
	blobs     []ocispec.Descriptor
	foreign   []ocispec.Descriptor // not copied
	seen      map[digest.Digest]bool
	size      int64 // of the manifests in indexes, bytes
}

// first says whether d was not seen before.
func (g *cargo) first(d digest.Digest) bool {
	known := g.seen[d]
	g.seen[d] = true
	return !known
}

// gather adds doc and all it names.
func (g *cargo) gather(ctx context.Context, doc *document, depth int) error {
	if depth == maxNesting {
		return g.source.fail(opCopy, "", fmt.Errorf("%w: indexes nested more than %d deep", ErrCorrupt, maxNesting))
	}
	g.seen[doc.digest] = true
	var m struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(doc.body, &m); err != nil {
		return g.source.fail(opCopy, "", fmt.Errorf("read manifest %s: %w", doc.digest, err))
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	var children []ocispec.Descriptor
	for _, d := range m.Manifests {
		if isManifestType(d.MediaType) {
			children = append(children, d)
		} else {
			blobs = append(blobs, d) // as BuildKit's older caches have them
		}
	}
	if err := errors.Join(checkDescriptors("manifest", children), checkDescriptors("blob", blobs)); err != nil {
		return g.source.fail(opCopy, "", fmt.Errorf("manifest %s: %w", doc.digest, err))
	}
	for _, d := range blobs {
		switch {
		case !g.first(d.Digest):
		case isForeign(d):
			g.foreign = append(g.foreign, d)
		default:
			g.blobs = append(g.blobs, d)
		}
	}
	if err := g.gatherAll(ctx, children, depth+1); err != nil {
		return err
	}
	g.documents = append(g.documents, doc)
	return nil
}

// gatherAll adds the manifests of an index.
func (g *cargo) gatherAll(ctx context.Context, children []ocispec.Descriptor, depth int) error {
	var fresh []ocispec.Descriptor
	for _, d := range children {
		if g.first(d.Digest) {
			fresh = append(fresh, d)
			g.size += d.Size
		}
	}
	if g.size > maxDocuments {
		return g.source.fail(opCopy, "", fmt.Errorf("%w: its manifests have more than %d MiB together", ErrCorrupt, maxDocuments>>20))
	}
	docs := make([]*document, len(fresh))
	err := g.each(ctx, len(fresh), func(ctx context.Context, i int) (err error) {
		docs[i], err = g.source.manifest(ctx, fresh[i].Digest.String(), fresh[i])
		return err
	})
	if err != nil {
		return err
	}
	for _, doc := range docs {
		if err := g.gather(ctx, doc, depth); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for 0 to n-1, side by side as far as the options allow.
func (g *cargo) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(defaultJobs)
	if g.options.Jobs > 0 {
		group.SetLimit(g.options.Jobs)
	}
	for i := range n {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(ctx, i)
		})
	}
	return group.Wait()
}

// isForeign says whether a layer is one that only its URLs give: registries are
// not sent it (image-spec v1.1, layer.md, "Non-Distributable Layers").
func isForeign(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 && (strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(d.MediaType, "application/vnd.docker.image.rootfs.foreign."))
}

// open opens a blob that is about to move.
func (g *cargo) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if g.options.Moving != nil {
		g.options.Moving(d)
	}
	return g.source.blob(ctx, OpPullBlob, d)
}

// push pushes to registries: blobs and manifests to each repository, and when
// all are there the root to each reference.
func (g *cargo) push(ctx context.Context, c *Client, to []*place) error {
	pushes := make(map[string]*Push) // by repository
	for _, p := range to {
		if d, ok := p.ref.(name.Digest); ok && d.DigestStr() != g.source.root.digest.String() {
			return fmt.Errorf("%s: what is copied has the digest %s: leave the digest out, or name a tag", p.text, g.source.root.digest)
		}
		repository := p.ref.Context().Name()
		if pushes[repository] == nil {
			push, err := c.Push(ctx, displayReference(p.ref))
			if err != nil {
				return err
			}
			pushes[repository] = push
		}
	}
	holders := []string{g.source.ref} // that have all blobs
	sent := make(map[string]bool)
	for _, p := range to {
		repository := p.ref.Context().Name()
		if sent[repository] {
			continue
		}
		sent[repository] = true
		if err := g.fill(ctx, pushes[repository], mountable(p.ref, holders)); err != nil {
			return err
		}
		holders = append(holders, displayReference(p.ref))
	}
	for _, p := range to {
		if err := pushes[p.ref.Context().Name()].document(ctx, p.ref, g.source.root); err != nil {
			return err
		}
	}
	return nil
}

// mountable returns the reference among holders that is at ref's registry, "" if
// none is.
func mountable(ref name.Reference, holders []string) string {
	for _, one := range holders {
		if held, err := parseReference(one); err == nil && held.Context().RegistryStr() == ref.Context().RegistryStr() {
			return one
		}
	}
	return ""
}

// fill makes sure that a repository has all that the root names. Blobs may be
// mounted from the repository of the reference from.
func (g *cargo) fill(ctx context.Context, p *Push, from string) error {
	err := g.each(ctx, len(g.blobs), func(ctx context.Context, i int) error {
		d := g.blobs[i]
		return p.Blob(ctx, d, from, func() (io.ReadCloser, error) { return g.open(ctx, d) })
	})
	if err != nil {
		return err
	}
	var images, indexes []*document
	for _, doc := range g.documents[:len(g.documents)-1] {
		if doc.isIndex() {
			indexes = append(indexes, doc)
		} else {
			images = append(images, doc)
		}
	}
	repository := p.session.ref.Context()
	err = g.each(ctx, len(images), func(ctx context.Context, i int) error {
		return p.document(ctx, repository.Digest(images[i].digest.String()), images[i])
	})
	if err != nil {
		return err
	}
	for _, doc := range indexes {
		if err := p.document(ctx, repository.Digest(doc.digest.String()), doc); err != nil {
			return err
		}
	}
	return nil
}

// document pushes a document as ref, which is in the repository of the push.
func (p *Push) document(ctx context.Context, ref name.Reference, doc *document) error {
	_, err := (&Push{session: p.session.at(ref)}).Manifest(ctx, doc.mediaType, doc.body)
	return err
}

// at returns the session for another reference to the same repository.
func (s *session) at(ref name.Reference) *session {
	other := *s
	other.ref = ref
	return &other
}

// write makes an OCI image layout of all.
func (g *cargo) write(ctx context.Context, to *place) error {
	root := g.source.root
	entry := ocispec.Descriptor{MediaType: root.mediaType, Digest: root.digest, Size: int64(len(root.body))}
	if to.layout.Tag != "" {
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: to.layout.Tag}
	}
	l := &layout{entries: []ocispec.Descriptor{entry}}
	for _, d := range g.blobs {
		l.blobs = append(l.blobs, layoutBlob{d, func(ctx context.Context) (io.ReadCloser, error) { return g.open(ctx, d) }})
	}
	for _, doc := range g.documents {
		d := ocispec.Descriptor{Digest: doc.digest, Size: int64(len(doc.body))}
		l.blobs = append(l.blobs, layoutBlob{d, bytesOpener(doc.body)})
	}
	if !to.tarred {
		return l.writeTo(ctx, to.path)
	}
	if err := l.addFiles(); err != nil {
		return err
	}
	return writeFile(to.path, func(w io.Writer) error { return l.writeTar(ctx, w) })
}

// writeDocker makes a docker archive of one image.
func (s *source) writeDocker(ctx context.Context, to *place, o CopyOptions) (*document, error) {
	var im *Image
	var err error
	if o.Platform != nil {
		im, err = s.pick(ctx, *o.Platform)
	} else {
		im, err = choose(ctx, s, s.root, platforms.DefaultSpec(), 0)
	}
	if err != nil {
		return nil, err
	}
	for _, l := range im.Layers {
		if isForeign(l.Descriptor) {
			return nil, s.fail(opCopy, "", fmt.Errorf("its layer %s is at a URL of its own, and a docker archive needs all layers", l.Digest))
		}
	}
	g := &cargo{source: s, options: o}
	a := Archive{
		Images: []ArchivedImage{{Manifest: im.Raw, MediaType: im.MediaType, Config: im.Config, Layers: im.Layers}},
		Open:   g.open,
	}
	if to.tag != "" {
		a.Refs = []string{to.tag}
	}
	err = writeFile(to.path, func(w io.Writer) error { return WriteDocker(ctx, w, a) })
	return im.document(), err
}

// writeFile makes a file appear with all that write writes or not at all.
func writeFile(name string, write func(io.Writer) error) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read
	if err := writeThenRename(root, filepath.Base(name), write); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
