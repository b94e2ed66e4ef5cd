package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	// maxNesting bounds indexes within indexes.
	maxNesting = 4

	opPullManifest = "pull manifest"
	opPullConfig   = "pull config"

	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaTypeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Image is one image of a registry or an image layout: for one platform, verified down to its
// config. It is safe for concurrent use; its fields are not to be changed.
type Image struct {
	// Reference is the image's repository with the digest of its manifest:
	// what names it for ever. In a layout it is "": no registry knows it.
	Reference string
	// Digest is that of Raw.
	Digest digest.Digest
	// Root is the digest of what the reference named: of an index when the
	// platform was chosen from one, else equal to Digest.
	Root digest.Digest
	// MediaType is that of Raw.
	MediaType string
	// Raw is the manifest as the registry keeps it, Manifest what it says.
	Raw      []byte
	Manifest ocispec.Manifest
	// Config is the image's config as the registry keeps it.
	Config []byte
	// Layers are those of the manifest, base first.
	Layers []Layer

	mirrors *mirrors // nil: layout is set
	layout  *LayoutImage
}

// Layer is a layer's blob together with the digest of the tar in it.
type Layer struct {
	ocispec.Descriptor               // of the compressed blob
	DiffID             digest.Digest // of the uncompressed tar
}

// Resolve finds the image that ref (with tag or digest, of an index or of a
// manifest) names for a platform. Variants match as containerd matches them: an
// arm/v7 image does for arm64, 386 for amd64, when there is nothing better. An
// index without an image for p is an error that lists those there are; a manifest
// that is named directly is taken whatever platform it is for.
//
// All bytes are verified; no layer is pulled. Mirrors that [Options.Conf] names
// are asked first; the image bears the name it was asked for by.
func (c *Client) Resolve(ctx context.Context, ref string, p ocispec.Platform) (*Image, error) {
	parsed, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	m, err := c.mirrors(parsed)
	if err != nil {
		return nil, err
	}
	im, err := ask(ctx, m, func(s *session) (*Image, error) { return s.image(ctx, p) })
	if err != nil {
		return nil, err
	}
	im.mirrors = m
	return im, nil
}

// ResolveArtifact is [Client.Resolve] that also takes a manifest which is no image but
// whose config is of type configType and has at most 8 MiB. The result then has no
// Layers: what the blobs of its Manifest are is for the config to tell.
func (c *Client) ResolveArtifact(ctx context.Context, ref string, p ocispec.Platform, configType string) (*Image, error) {
	parsed, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	m, err := c.mirrors(parsed)
	if err != nil {
		return nil, err
	}
	im, err := ask(ctx, m, func(s *session) (*Image, error) {
		doc, err := s.root(ctx)
		if err != nil {
			return nil, err
		}
		im, err := chooseArtifact(ctx, s, doc, p, configType)
		if err != nil {
			return nil, err
		}
		for _, l := range im.Manifest.Layers {
			s.client.seen(s.ref.Context(), l.Digest)
		}
		return im, nil
	})
	if err != nil {
		return nil, err
	}
	im.mirrors = m
	return im, nil
}

// chooseArtifact follows doc to the artifact that it is or to the image for p.
func chooseArtifact(ctx context.Context, s keeper, doc *document, p ocispec.Platform, configType string) (*Image, error) {
	var im *Image
	var err error
	if !doc.isIndex() && artifactType(doc) == configType {
		im, err = artifact(ctx, s, doc)
	} else {
		im, err = choose(ctx, s, doc, p, 0)
	}
	if err != nil {
		return nil, err
	}
	im.Root = doc.digest
	return im, nil
}

// artifactType returns the type of the config that the manifest doc has.
func artifactType(doc *document) string {
	var m ocispec.Manifest
	if json.Unmarshal(doc.body, &m) != nil {
		return ""
	}
	return m.Config.MediaType
}

// Annotations returns the annotations of the manifest or index that ref names. It
// makes one request for a manifest and none for a blob.
func (c *Client) Annotations(ctx context.Context, ref string) (map[string]string, error) {
	parsed, err := parseReference(ref)
	if err != nil {
		return nil, err
	}
	m, err := c.mirrors(parsed)
	if err != nil {
		return nil, err
	}
	doc, err := m.root(ctx)
	if err != nil {
		return nil, err
	}
	var annotated struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(doc.body, &annotated); err != nil {
		return nil, m.fail(opPullManifest, doc.digest.String(), fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	return annotated.Annotations, nil
}

// root gets what the session's reference names.
func (s *session) root(ctx context.Context) (*document, error) {
	want := ocispec.Descriptor{Size: -1}
	if d, ok := s.ref.(name.Digest); ok {
		want.Digest = digest.Digest(d.DigestStr())
	}
	return s.manifest(ctx, s.ref.Identifier(), want)
}

// image finds the image that the session's reference names for a platform.
func (s *session) image(ctx context.Context, p ocispec.Platform) (*Image, error) {
	doc, err := s.root(ctx)
	if err != nil {
		return nil, err
	}
	im, err := choose(ctx, s, doc, p, 0)
	if err != nil {
		return nil, err
	}
	im.Root = doc.digest
	for _, l := range im.Layers {
		s.client.seen(s.ref.Context(), l.Digest)
	}
	return im, nil
}

// document is a manifest or an index as it came.
type document struct {
	digest    digest.Digest
	mediaType string
	body      []byte
}

func (d *document) isIndex() bool {
	return d.mediaType == ocispec.MediaTypeImageIndex || d.mediaType == mediaTypeDockerList
}

// manifest gets a manifest or index by tag or digest. want says what is known of
// it: an empty digest or a size of -1 are not.
func (s *session) manifest(ctx context.Context, identifier string, want ocispec.Descriptor) (*document, error) {
	if want.Size > maxManifest {
		return nil, s.fail(opPullManifest, "", tooLarge(want.Size, maxManifest))
	}
	c := &call{
		op:     opPullManifest,
		method: http.MethodGet,
		url:    s.url("manifests/" + identifier),
		header: http.Header{"Accept": {strings.Join([]string{
			ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
			mediaTypeDockerList, mediaTypeDockerManifest,
		}, ", ")}},
		accept: []int{http.StatusOK},
	}
	var doc *document
	err := s.client.run(ctx, c.op+" "+displayReference(s.ref), func() error {
		return s.perform(ctx, c, func(resp *http.Response) error {
			body, err := readBounded(resp.Body, maxManifest)
			if err == nil {
				doc, err = readDocument(resp.Header, body, want)
			}
			if err != nil {
				return s.fail(c.op, "", err)
			}
			return nil
		})
	})
	return doc, err
}

// readBounded reads all of r, which may have at most limit bytes.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: larger than the %d MiB allowed", ErrCorrupt, limit>>20)
	}
	return body, nil
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("%w: %d bytes are more than the %d MiB allowed", ErrCorrupt, size, limit>>20)
}

// verify checks a body against its descriptor.
func verify(body []byte, want ocispec.Descriptor) error {
	if want.Size >= 0 && int64(len(body)) != want.Size {
		return spoiled("%d bytes instead of %d", len(body), want.Size)
	}
	if got := want.Digest.Algorithm().FromBytes(body); got != want.Digest {
		return spoiled("digest %s instead of %s", got, want.Digest)
	}
	return nil
}

// readDocument verifies a manifest or index and finds out which it is.
func readDocument(h http.Header, body []byte, want ocispec.Descriptor) (*document, error) {
	if want.Digest == "" {
		want.Digest = digest.FromBytes(body)
		if said, err := digest.Parse(h.Get("Docker-Content-Digest")); err == nil {
			want.Digest = said
		}
	}
	if err := verify(body, want); err != nil {
		return nil, err
	}
	contentType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		contentType = "" // as good as none
	}
	mediaType, err := documentType(body, contentType)
	if err != nil {
		return nil, err
	}
	return &document{digest: want.Digest, mediaType: mediaType, body: body}, nil
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
	isIndex, isManifest := shape.Manifests != nil, shape.Layers != nil || shape.Config != nil
	switch {
	case shape.SchemaVersion == 1, shape.FSLayers != nil, mediaType == mediaTypeSchema1, mediaType == mediaTypeSchema1Signed:
		return "", errors.New("the image is in docker's obsolete format (manifest schema 1), which is not supported: " +
			"pull and push it again with a current docker")
	case isIndex && isManifest:
		return "", fmt.Errorf("%w: the document is both a manifest and an index", ErrCorrupt)
	case isIndex:
		return oneOf(mediaType, ocispec.MediaTypeImageIndex, mediaTypeDockerList)
	case isManifest:
		return oneOf(mediaType, ocispec.MediaTypeImageManifest, mediaTypeDockerManifest)
	}
	return "", fmt.Errorf("neither a manifest nor an index: media type %q", words.Line(mediaType))
}

// oneOf returns which of the two types, OCI's first, a document has. One whose
// type is none at all (registries behind proxies send text/plain) is OCI's.
func oneOf(mediaType, oci, docker string) (string, error) {
	switch mediaType {
	case oci, docker:
		return mediaType, nil
	case ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, mediaTypeDockerList, mediaTypeDockerManifest:
		return "", fmt.Errorf("%w: it calls itself %s, and is something else", ErrCorrupt, mediaType)
	}
	return oci, nil
}

// image reads the image whose manifest doc is.
func image(ctx context.Context, s keeper, doc *document) (*Image, error) {
	if t := artifactType(doc); !isImageConfig(t) {
		return nil, s.fail(opPullManifest, "", &artifactError{t})
	}
	im, err := artifact(ctx, s, doc)
	if err != nil {
		return nil, err
	}
	if im.Layers, err = layers(&im.Manifest, im.Config); err != nil {
		return nil, s.fail(opPullConfig, im.Manifest.Config.Digest.String(), err)
	}
	return im, nil
}

// artifact reads the manifest doc and its config, whatever that is.
func artifact(ctx context.Context, s keeper, doc *document) (*Image, error) {
	im := &Image{
		Digest:    doc.digest,
		Reference: s.reference(doc.digest),
		MediaType: doc.mediaType,
		Raw:       doc.body,
	}
	if err := json.Unmarshal(doc.body, &im.Manifest); err != nil {
		return nil, s.fail(opPullManifest, "", fmt.Errorf("read manifest: %w", err))
	}
	if err := checkManifest(&im.Manifest); err != nil {
		return nil, s.fail(opPullManifest, "", err)
	}
	config := im.Manifest.Config
	if config.Size > maxConfig {
		return nil, s.fail(opPullConfig, config.Digest.String(), tooLarge(config.Size, maxConfig))
	}
	var err error
	if im.Config, err = s.config(ctx, config); err != nil {
		return nil, err
	}
	return im, nil
}

// checkManifest refuses descriptors that can't be true.
func checkManifest(m *ocispec.Manifest) error {
	if err := checkDescriptor("config", m.Config); err != nil {
		return err
	}
	return checkDescriptors("layer", m.Layers)
}

// artifactError is a manifest of something else than an image.
type artifactError struct{ configType string }

func (e *artifactError) Error() string {
	return fmt.Sprintf("not a container image: its config is of type %q", words.Line(e.configType))
}

func isImageConfig(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageConfig, mediaTypeDockerConfig, "":
		return true
	}
	return false
}

// checkDescriptors checks all, which are counted from 1.
func checkDescriptors(what string, all []ocispec.Descriptor) error {
	for i, d := range all {
		if err := checkDescriptor(fmt.Sprintf("%s %d", what, i+1), d); err != nil {
			return err
		}
	}
	return nil
}

// checkDescriptor refuses a descriptor that can't be true.
func checkDescriptor(subject string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: the %s's digest %q: %w", ErrCorrupt, subject, words.Line(d.Digest.String()), err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: the %s has %d bytes", ErrCorrupt, subject, d.Size)
	}
	return nil
}

// layers joins the manifest's layers with the config's DiffIDs.
func layers(m *ocispec.Manifest, config []byte) ([]Layer, error) {
	var read struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &read); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	ids := read.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("%w: the manifest has %d layers, the config %d (rootfs.diff_ids)",
			ErrCorrupt, len(m.Layers), len(ids))
	}
	joined := make([]Layer, len(ids))
	for i, id := range ids {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("%w: rootfs.diff_ids[%d] %q: %w", ErrCorrupt, i, words.Line(id.String()), err)
		}
		joined[i] = Layer{Descriptor: m.Layers[i], DiffID: id}
	}
	return joined, nil
}

// reference implements keeper.
func (s *session) reference(d digest.Digest) string {
	return displayRepository(s.named) + "@" + d.String()
}

// config gets a config blob.
func (s *session) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	for {
		blob, err := s.blob(ctx, opPullConfig, d, nil)
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
