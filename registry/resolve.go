package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What [Client.Resolve] returns.
type (
	Image = oci.Image
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
			s.client.seen(s.ref.Context(), l.Digest)
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
	return k.site.manifest(ctx, want.Digest.String(), want)
}

// Config implements oci.Keeper.
func (k *siteKeeper) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return k.site.config(ctx, d)
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

// root gets what the session's reference names.
func (s *session) root(ctx context.Context) (*oci.Document, error) {
	want := ocispec.Descriptor{Size: -1}
	if d, ok := s.ref.(name.Digest); ok {
		want.Digest = digest.Digest(d.DigestStr())
	}
	return s.manifest(ctx, s.ref.Identifier(), want)
}

// manifest gets a manifest or index by tag or digest. want says what is known of
// it: an empty digest or a size of -1 are not.
func (s *session) manifest(ctx context.Context, identifier string, want ocispec.Descriptor) (*oci.Document, error) {
	if want.Size > oci.MaxManifest {
		return nil, s.fail(oci.OpPullManifest, "", oci.TooLarge(want.Size, oci.MaxManifest))
	}
	c := &call{
		op:     oci.OpPullManifest,
		method: http.MethodGet,
		url:    s.url("manifests/" + identifier),
		header: http.Header{"Accept": {strings.Join([]string{
			ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
			oci.DockerList, oci.DockerManifest,
		}, ", ")}},
		accept: []int{http.StatusOK},
	}
	var doc *oci.Document
	err := s.client.run(ctx, c.op+" "+reference.String(s.ref), func() error {
		return s.perform(ctx, c, func(resp *http.Response) error {
			body, err := oci.ReadBounded(resp.Body, oci.MaxManifest)
			if err == nil {
				doc, err = oci.ReadDocument(body, resp.Header.Get("Content-Type"), promised(resp, want))
			}
			if err != nil {
				return s.fail(c.op, "", err)
			}
			return nil
		})
	})
	return doc, err
}

// promised is want with the digest that the registry says, if no other is known.
func promised(resp *http.Response, want ocispec.Descriptor) ocispec.Descriptor {
	if want.Digest == "" {
		if said, err := digest.Parse(resp.Header.Get("Docker-Content-Digest")); err == nil {
			want.Digest = said
		}
	}
	return want
}

// config gets a config blob.
func (s *session) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	for {
		blob, err := s.blob(ctx, oci.OpPullConfig, d, nil)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(blob)
		_ = blob.Close() // its bytes are verified by then
		if e, ok := errors.AsType[*Error](err); !ok || !e.again {
			return body, err
		}
	}
}
