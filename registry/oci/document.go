package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxManifest bounds manifests and indexes, in bytes (distribution-spec, "Pushing
	// Manifests").
	MaxManifest = 4 << 20
	// MaxConfig bounds configs, in bytes.
	MaxConfig = 8 << 20
	// MaxNesting bounds indexes within indexes.
	MaxNesting = 4
)

// The media types of docker's image format.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"

	dockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// A Document is a manifest or an index as it came, verified.
type Document struct {
	Digest    digest.Digest
	MediaType string
	Body      []byte
}

// IsIndex says whether the document is an index.
func (d *Document) IsIndex() bool {
	return d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == DockerList
}

// Descriptor describes the document.
func (d *Document) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(d.Body))}
}

// configType returns the type of the config that a manifest has.
func (d *Document) configType() string {
	var m ocispec.Manifest
	if json.Unmarshal(d.Body, &m) != nil {
		return ""
	}
	return m.Config.MediaType
}

// ReadDocument verifies a manifest or index and finds out which it is. contentType is what
// the keeper calls it. An empty digest or a size of -1 in want aren't known.
func ReadDocument(body []byte, contentType string, want ocispec.Descriptor) (*Document, error) {
	if want.Digest == "" {
		want.Digest = digest.FromBytes(body)
	}
	if err := Verify(body, want); err != nil {
		return nil, err
	}
	contentType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		contentType = "" // it says nothing
	}
	mediaType, err := documentType(body, contentType)
	if err != nil {
		return nil, err
	}
	return &Document{Digest: want.Digest, MediaType: mediaType, Body: body}, nil
}

// documentType tells manifests from indexes. A document that could be both is
// refused: its reader would choose what its digest stands for.
func documentType(body []byte, contentType string) (string, error) {
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(body, &shape); err != nil {
		what := "is not JSON"
		if contentType != "" {
			what += " (it came as " + words.Line(contentType) + ")"
		}
		return "", fmt.Errorf("the manifest %s: %w", what, err)
	}
	mediaType := shape.MediaType
	if mediaType == "" {
		mediaType = contentType
	}
	IsIndex, isManifest := shape.Manifests != nil, shape.Layers != nil || shape.Config != nil
	switch {
	case shape.SchemaVersion == 1, shape.FSLayers != nil, mediaType == dockerSchema1, mediaType == dockerSchema1Signed:
		return "", errors.New("the image is in docker's obsolete format (manifest schema 1), which is not supported: " +
			"pull and push it again with a current docker")
	case IsIndex && isManifest:
		return "", fmt.Errorf("%w: the Document is both a manifest and an index", ErrCorrupt)
	case IsIndex:
		return oneOf(mediaType, ocispec.MediaTypeImageIndex, DockerList)
	case isManifest:
		return oneOf(mediaType, ocispec.MediaTypeImageManifest, DockerManifest)
	}
	return "", fmt.Errorf("neither a manifest nor an index: media type %q", words.Line(mediaType))
}

// oneOf returns which of the two types, OCI's or docker's, a document has. Registries
// behind proxies may call it text/plain or the like: then it is OCI's.
func oneOf(mediaType, oci, docker string) (string, error) {
	switch mediaType {
	case oci, docker:
		return mediaType, nil
	case ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, DockerList, DockerManifest:
		return "", fmt.Errorf("%w: it calls itself %s, and is something else", ErrCorrupt, mediaType)
	}
	return oci, nil
}

// IsManifestType says whether a descriptor of the type is of a manifest or an index, or may
// be.
func IsManifestType(mediaType string) bool {
	switch mediaType {
	case "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, DockerManifest, DockerList:
		return true
	}
	return false
}

// IsImageConfig says whether a config of the type belongs to an image.
func IsImageConfig(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageConfig, DockerConfig, "":
		return true
	}
	return false
}
