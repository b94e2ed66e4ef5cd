package serve

import (
	"fmt"
	"slices"

	"github.com/containers/storage/pkg/regexp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest is the size in bytes of the largest manifest that is taken
// (distribution-spec, section "Pushing Manifests").
const maxManifest = 4 << 20

// document is what counts of a manifest or an index.
type document struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
}

// blobs returns all that the document names but manifests.
func (d *document) blobs() []ocispec.Descriptor {
	if d.Config == nil {
		return d.Layers
	}
	return append([]ocispec.Descriptor{*d.Config}, d.Layers...)
}

// parts returns all that the document is made of.
func (d *document) parts() []ocispec.Descriptor { return slices.Concat(d.blobs(), d.Manifests) }

// checkDigests refuses digests that nothing here can have.
func (d *document) checkDigests() error {
	named := d.parts()
	if d.Subject != nil {
		named = append(named, *d.Subject)
	}
	for _, part := range named {
		if _, err := parseDigest(part.Digest.String()); err != nil {
			return err
		}
	}
	return nil
}

func (d *document) subject() digest.Digest {
	if d.Subject == nil {
		return ""
	}
	return d.Subject.Digest
}

// tagPattern is distribution-spec's, section "Pulling manifests".
var tagPattern = regexp.Delayed(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// parseDigest also refuses algorithms that the registry doesn't compute.
func parseDigest(text string) (digest.Digest, error) {
	d := digest.Digest(text)
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w; it must be sha256:… or sha512:…", text, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", fmt.Errorf("digest algorithm %s: %w; use sha256 or sha512", a, digest.ErrDigestUnsupported)
	}
	return d, nil
}
