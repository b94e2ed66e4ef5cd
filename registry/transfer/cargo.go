package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// cargo is all that is to be copied.
type cargo struct {
	source  *source
	options Options

	documents []*oci.Document // each after those it names: the root is last
	blobs     []ocispec.Descriptor
	foreign   []ocispec.Descriptor // not copied
	seen      map[digest.Digest]bool
	size      int64 // of the manifests in indexes, bytes
}

// first reports whether d was not seen before.
func (g *cargo) first(d digest.Digest) bool {
	known := g.seen[d]
	g.seen[d] = true
	return !known
}

// gather adds doc and all it names.
func (g *cargo) gather(ctx context.Context, doc *oci.Document, depth int) error {
	if depth == oci.MaxNesting {
		return g.source.Fail(opCopy, "", fmt.Errorf("%w: indexes nested more than %d deep", oci.ErrCorrupt, oci.MaxNesting))
	}
	g.seen[doc.Digest] = true
	var m struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(doc.Body, &m); err != nil {
		return g.source.Fail(opCopy, "", fmt.Errorf("read manifest %s: %w", doc.Digest, err))
	}
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs, *m.Config)
	}
	var children []ocispec.Descriptor
	for _, d := range m.Manifests {
		if oci.IsManifestType(d.MediaType) {
			children = append(children, d)
		} else {
			blobs = append(blobs, d) // as BuildKit's older caches have them
		}
	}
	if err := errors.Join(oci.CheckDescriptors("manifest", children), oci.CheckDescriptors("blob", blobs)); err != nil {
		return g.source.Fail(opCopy, "", fmt.Errorf("manifest %s: %w", doc.Digest, err))
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
		return g.source.Fail(opCopy, "", fmt.Errorf("%w: its manifests have more than %d MiB together", oci.ErrCorrupt, maxDocuments>>20))
	}
	docs := make([]*oci.Document, len(fresh))
	err := g.each(ctx, len(fresh), func(ctx context.Context, i int) (err error) {
		docs[i], err = g.source.Manifest(ctx, fresh[i])
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

// isForeign reports whether a layer can only be had from its URLs: registries are not
// sent it (image-spec v1.1, layer.md, "Non-Distributable Layers").
func isForeign(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 && (strings.HasPrefix(d.MediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(d.MediaType, "application/vnd.docker.image.rootfs.foreign."))
}

// open opens a blob that is about to move.
func (g *cargo) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if g.options.Moving != nil {
		g.options.Moving(d)
	}
	return g.source.Blob(ctx, d)
}

// push pushes to registries: blobs and manifests to each repository, and when
// all are there the root to each reference.
func (g *cargo) push(ctx context.Context, c *registry.Client, to []*place) error {
	pushes := make(map[string]*registry.Push) // by repository
	for _, p := range to {
		if d, ok := p.ref.(name.Digest); ok && d.DigestStr() != g.source.root.Digest.String() {
			return fmt.Errorf("%s: what is copied has the digest %s: leave the digest out, or name a tag", p.text, g.source.root.Digest)
		}
		repository := p.ref.Context().Name()
		if pushes[repository] == nil {
			push, err := c.Push(ctx, reference.String(p.ref))
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
		holders = append(holders, reference.String(p.ref))
	}
	for _, p := range to {
		push := pushes[p.ref.Context().Name()].As(p.ref.Identifier())
		if _, err := push.Manifest(ctx, g.source.root.MediaType, g.source.root.Body); err != nil {
			return err
		}
	}
	return nil
}

// mountable returns the reference among holders that is at ref's registry, "" if there
// is no such reference.
func mountable(ref name.Reference, holders []string) string {
	for _, one := range holders {
		if held, err := reference.Parse(one); err == nil && held.Context().RegistryStr() == ref.Context().RegistryStr() {
			return one
		}
	}
	return ""
}

// fill makes sure that a repository has everything that the root names. Blobs may be
// mounted from the repository of the reference from.
func (g *cargo) fill(ctx context.Context, p *registry.Push, from string) error {
	err := g.each(ctx, len(g.blobs), func(ctx context.Context, i int) error {
		d := g.blobs[i]
		return p.Blob(ctx, d, from, func() (io.ReadCloser, error) { return g.open(ctx, d) })
	})
	if err != nil {
		return err
	}
	var images, indexes []*oci.Document
	for _, doc := range g.documents[:len(g.documents)-1] {
		if doc.IsIndex() {
			indexes = append(indexes, doc)
		} else {
			images = append(images, doc)
		}
	}
	put := func(ctx context.Context, doc *oci.Document) error {
		_, err := p.As(doc.Digest.String()).Manifest(ctx, doc.MediaType, doc.Body)
		return err
	}
	err = g.each(ctx, len(images), func(ctx context.Context, i int) error { return put(ctx, images[i]) })
	if err != nil {
		return err
	}
	for _, doc := range indexes {
		if err := put(ctx, doc); err != nil {
			return err
		}
	}
	return nil
}

// write makes an OCI image layout of all.
func (g *cargo) write(ctx context.Context, to *place) error {
	entry := g.source.root.Descriptor()
	if tag := to.file.Image.Tag; tag != "" {
		entry.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	l := &archive.Layout{Entries: []ocispec.Descriptor{entry}}
	for _, d := range g.blobs {
		l.Blobs = append(l.Blobs, archive.Blob{Descriptor: d, Open: func(ctx context.Context) (io.ReadCloser, error) { return g.open(ctx, d) }})
	}
	for _, doc := range g.documents {
		l.Blobs = append(l.Blobs, archive.Blob{Descriptor: doc.Descriptor(), Open: archive.Bytes(doc.Body)})
	}
	if to.tarred {
		return l.WriteFile(ctx, to.file.Image.Dir)
	}
	return l.WriteDir(ctx, to.file.Image.Dir)
}
