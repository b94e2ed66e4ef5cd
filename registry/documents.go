package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
		accept: []int{http.StatusOK},
		Call: wire.Call{
			Method: http.MethodGet,
			URL:    s.url("manifests/" + identifier),
			Header: http.Header{"Accept": {strings.Join([]string{
				ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
				oci.DockerList, oci.DockerManifest,
			}, ", ")}},
		},
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
		blob, err := s.blob(ctx, oci.OpPullConfig, d, onlyHere{})
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
