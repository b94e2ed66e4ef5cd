package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type (
	// Image is what [Client.Resolve] returns.
	Image = oci.Image
	// Layer is one of an [Image].
	Layer = oci.Layer
)

// Resolve finds the image that ref (with tag or digest, of an index or of a manifest)
// names for a platform, as [oci.Choose] does.
//
// All bytes are verified; no layer is pulled. Mirrors that [Options.Conf] names
// are asked first; the image bears the name it was asked for by.
//
// A reader of [oci.Image.Blob] continues where it was after transient failures, and at the
// next place when a mirror fails. If it ends with an [*Error], [Error.Again] says whether
// to open the blob once more, which waits a little and asks the next place if it was a
// mirror's.
func (c *Client) Resolve(ctx context.Context, ref string, p ocispec.Platform) (*oci.Image, error) {
	return c.resolve(ctx, ref, func(ctx context.Context, k oci.Keeper, doc *oci.Document) (*oci.Image, error) {
		return oci.Choose(ctx, k, doc, p)
	})
}

// ResolveArtifact is [Client.Resolve] that also takes a manifest which is no image but
// whose config is of type configType and has at most 8 MiB, as [oci.ChooseArtifact] does.
func (c *Client) ResolveArtifact(ctx context.Context, ref string, p ocispec.Platform, configType string) (*oci.Image, error) {
	return c.resolve(ctx, ref, func(ctx context.Context, k oci.Keeper, doc *oci.Document) (*oci.Image, error) {
		return oci.ChooseArtifact(ctx, k, doc, p, configType)
	})
}

// resolve finds what choose makes of the document that ref names.
func (c *Client) resolve(ctx context.Context, ref string, choose func(context.Context, oci.Keeper, *oci.Document) (*oci.Image, error)) (*oci.Image, error) {
	from, err := c.Source(ref)
	if err != nil {
		return nil, err
	}
	return ask(ctx, from, func(s *session) (*oci.Image, error) {
		doc, err := s.root(ctx)
		if err != nil {
			return nil, err
		}
		im, err := choose(ctx, &siteKeeper{s, from}, doc)
		if err != nil {
			return nil, err
		}
		im.Reference = reference.Repository(s.named) + "@" + im.Digest.String()
		for _, l := range im.Manifest.Layers {
			s.client.blobs.seen(s.ref.Context(), l.Digest)
		}
		return im, nil
	})
}

// siteKeeper is an [oci.Keeper] whose documents are all of one site. Blobs are read later,
// from wherever they can be had then.
type siteKeeper struct {
	site *session
	from *Source
}

// Manifest implements oci.Keeper.
func (k *siteKeeper) Manifest(ctx context.Context, want ocispec.Descriptor) (*oci.Document, error) {
	documents := k.site.client.documents
	if body := documents.get(want); body != nil {
		if doc, err := oci.ReadDocument(body, want.MediaType, want); err == nil {
			return doc, nil
		}
	}
	doc, err := k.site.manifest(ctx, want.Digest.String(), want)
	if err == nil {
		documents.put(want.Digest, doc.Body)
	}
	return doc, err
}

// Config implements oci.Keeper.
func (k *siteKeeper) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	documents := k.site.client.documents
	if body := documents.get(d); body != nil {
		return body, nil
	}
	body, err := k.site.config(ctx, d)
	if err == nil {
		documents.put(d.Digest, body)
	}
	return body, err
}

// Blob implements oci.Keeper.
func (k *siteKeeper) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return k.from.Blob(ctx, d)
}

// Fail implements oci.Keeper.
func (k *siteKeeper) Fail(op, digest string, cause error) error {
	return k.site.fail(op, digest, cause)
}

// Annotations returns the annotations of the manifest or index that ref names. It
// makes one request for a manifest and none for a blob.
func (c *Client) Annotations(ctx context.Context, ref string) (map[string]string, error) {
	from, err := c.Source(ref)
	if err != nil {
		return nil, err
	}
	doc, err := from.Root(ctx)
	if err != nil {
		return nil, err
	}
	var annotated struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(doc.Body, &annotated); err != nil {
		return nil, from.Fail(oci.OpPullManifest, doc.Digest.String(), fmt.Errorf("%w: %w", oci.ErrCorrupt, err))
	}
	return annotated.Annotations, nil
}
