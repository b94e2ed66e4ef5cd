package registry

import (
	"context"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Documents keeps values by a kind and a digest, as a snapshot.Store does. Its methods may
// be called concurrently.
type Documents interface {
	// Record returns a value. Any error means that it isn't kept.
	Record(kind string, key digest.Digest) ([]byte, error)
	// PutRecord keeps a value.
	PutRecord(kind string, key digest.Digest, value []byte) error
}

// keptDocument is the kind of the bytes of manifests and configs. The number counts up
// whenever what is kept changes.
const keptDocument = "document-1"

// kept returns the bytes of the document d, verified, or nil if they are not kept.
func (c *Client) kept(d ocispec.Descriptor) []byte {
	if c.documents == nil || d.Digest.Validate() != nil {
		return nil
	}
	body, err := c.documents.Record(keptDocument, d.Digest)
	if err != nil || oci.Verify(body, d) != nil {
		return nil
	}
	return body
}

// keep keeps the verified bytes of the document d. It doesn't matter if it can't: they are
// got anew then.
func (c *Client) keep(d digest.Digest, body []byte) {
	if c.documents != nil {
		_ = c.documents.PutRecord(keptDocument, d, body)
	}
}

// Manifest implements oci.Keeper.
func (k *siteKeeper) Manifest(ctx context.Context, want ocispec.Descriptor) (*oci.Document, error) {
	if body := k.site.client.kept(want); body != nil {
		if doc, err := oci.ReadDocument(body, want.MediaType, want); err == nil {
			return doc, nil
		}
	}
	doc, err := k.site.manifest(ctx, want.Digest.String(), want)
	if err == nil {
		k.site.client.keep(want.Digest, doc.Body)
	}
	return doc, err
}

// Config implements oci.Keeper.
func (k *siteKeeper) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if body := k.site.client.kept(d); body != nil {
		return body, nil
	}
	body, err := k.site.config(ctx, d)
	if err == nil {
		k.site.client.keep(d.Digest, body)
	}
	return body, err
}
