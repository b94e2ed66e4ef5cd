package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspection describes an image, an index or an artifact at a place.
type Inspection struct {
	// Reference is its name as it was asked for, at a registry with host and
	// repository in full.
	Reference string
	// Digest and MediaType describe Raw. A docker archive has no manifest
	// and so no digest: it gets one when it is copied.
	Digest    digest.Digest
	MediaType string
	// Raw is the manifest or index byte for byte, of a docker archive its
	// manifest.json.
	Raw []byte
	// Index is Raw decoded if it is an index; Manifest and Config are nil then.
	Index *ocispec.Index
	// Manifest is Raw decoded if it is a manifest. The layers of a docker archive are
	// described as they are in it.
	Manifest *ocispec.Manifest
	// Config is the image's config, nil if the manifest is of another artifact.
	Config []byte
}

// InspectOptions say what [Inspect] looks at. The zero value is what the place
// itself names.
type InspectOptions struct {
	// Platform picks one image of an index.
	Platform *ocispec.Platform
	// TempDir and MaxUnpacked are as in [Options].
	TempDir     string
	MaxUnpacked int64
}

// Inspect reads what the place src (see [Copy]) says, verified, and no layer
// but compressed ones of a docker archive, whose digests aren't known otherwise.
func Inspect(ctx context.Context, c *registry.Client, src string, o InspectOptions) (*Inspection, error) {
	from, err := parsePlace(src)
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, c, from, archive.Options{TempDir: o.TempDir, MaxUnpacked: o.MaxUnpacked, Keep: true, DockerTypes: true})
	if err != nil {
		return nil, err
	}
	in, err := s.inspect(ctx, o.Platform)
	if err := errors.Join(err, s.close()); err != nil {
		return nil, err
	}
	in.Reference = src
	if s.ref != "" {
		in.Reference = s.ref
	}
	return in, nil
}

func (s *source) inspect(ctx context.Context, p *ocispec.Platform) (*Inspection, error) {
	doc := s.root
	if p != nil {
		im, err := oci.Pick(ctx, s, s.root, *p)
		if err != nil {
			return nil, err
		}
		doc = im.Document()
	}
	in := &Inspection{Digest: doc.Digest, MediaType: doc.MediaType, Raw: doc.Body}
	if s.dockerManifest != nil {
		in.Digest, in.Raw = "", s.dockerManifest
	}
	if doc.IsIndex() {
		return in, s.read(doc, &in.Index)
	}
	if err := s.read(doc, &in.Manifest); err != nil {
		return nil, err
	}
	config := in.Manifest.Config
	if !oci.IsImageConfig(config.MediaType) {
		return in, nil
	}
	if err := oci.CheckDescriptor("config", config); err != nil {
		return nil, s.Fail(oci.OpPullManifest, "", err)
	}
	if config.Size > oci.MaxConfig {
		return nil, s.Fail(oci.OpPullConfig, config.Digest.String(), oci.TooLarge(config.Size, oci.MaxConfig))
	}
	var err error
	in.Config, err = s.Config(ctx, config)
	return in, err
}

// read reads what a document says.
func (s *source) read(doc *oci.Document, into any) error {
	if err := json.Unmarshal(doc.Body, into); err != nil {
		return s.Fail(oci.OpPullManifest, "", fmt.Errorf("read manifest: %w", err))
	}
	return nil
}
