package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxUnnamed bounds how many manifests of an index that doesn't tell their
// platforms are opened to find out.
const maxUnnamed = 16

// A keeper has the documents of images: a repository of a registry, or a layout.
type keeper interface {
	// manifest gets a manifest or index by tag or digest, verified.
	manifest(ctx context.Context, identifier string, want ocispec.Descriptor) (*document, error)
	// config gets a config blob, verified.
	config(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// reference names an image for ever.
	reference(d digest.Digest) string
	fail(op, digest string, cause error) *Error
}

// choose follows doc to the image for p. What a reference names directly, at depth
// 0, is taken whatever its platform: only an index offers a choice. BuildKit does
// so too, and warns.
func choose(ctx context.Context, s keeper, doc *document, p ocispec.Platform, depth int) (*Image, error) {
	if !doc.isIndex() {
		im, err := image(ctx, s, doc)
		if err != nil || depth == 0 {
			return im, err
		}
		has, err := configPlatform(im.Config, p)
		if err != nil {
			return nil, s.fail(opPullConfig, im.Manifest.Config.Digest.String(), err)
		}
		if !platforms.Only(p).Match(has) {
			return nil, noPlatform(s, p, []string{platforms.Format(has)})
		}
		return im, nil
	}
	if depth == maxNesting {
		return nil, s.fail(opPullManifest, "", fmt.Errorf("%w: indexes nested more than %d deep", ErrCorrupt, maxNesting))
	}
	named, unnamed, there, err := readIndex(doc.body, p)
	if err != nil {
		return nil, s.fail(opPullManifest, "", err)
	}
	if len(named) > 0 {
		child, err := s.manifest(ctx, named[0].Digest.String(), named[0])
		if err != nil {
			return nil, err
		}
		if child.isIndex() {
			return choose(ctx, s, child, p, depth+1)
		}
		// The index has spoken: configs of old tools know less.
		return image(ctx, s, child)
	}
	for _, d := range unnamed[:min(len(unnamed), maxUnnamed)] {
		child, err := s.manifest(ctx, d.Digest.String(), d)
		if err != nil {
			return nil, err
		}
		im, err := choose(ctx, s, child, p, depth+1)
		var mismatch *platformError
		switch {
		case err == nil:
			return im, nil
		case errors.As(err, &mismatch):
			there = append(there, mismatch.there...)
		case errors.As(err, new(*artifactError)):
		default:
			return nil, err
		}
	}
	return nil, noPlatform(s, p, there)
}

// readIndex returns the entries that match p, best first, those that name no
// platform, and the platforms that there are.
func readIndex(body []byte, p ocispec.Platform) (named, unnamed []ocispec.Descriptor, there []string, err error) {
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, nil, nil, fmt.Errorf("read index: %w", err)
	}
	matcher := platforms.Only(p)
	for i, d := range index.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, nil, nil, fmt.Errorf("%w: entry %d of the index: digest %q: %w",
				ErrCorrupt, i, words.Line(d.Digest.String()), err)
		}
		if d.Size < 0 {
			return nil, nil, nil, fmt.Errorf("%w: entry %d of the index has %d bytes", ErrCorrupt, i, d.Size)
		}
		switch {
		case isAttestation(d), !isManifestType(d.MediaType):
		case d.Platform == nil:
			unnamed = append(unnamed, d)
		default:
			there = append(there, platforms.Format(*d.Platform))
			if matcher.Match(*d.Platform) {
				named = append(named, d)
			}
		}
	}
	slices.SortStableFunc(named, func(a, b ocispec.Descriptor) int {
		switch {
		case matcher.Less(*a.Platform, *b.Platform):
			return -1
		case matcher.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return named, unnamed, there, nil
}

// isAttestation says whether d is BuildKit's provenance or SBOM of another entry.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		(d.Platform != nil && d.Platform.OS == "unknown")
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case "", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerList:
		return true
	}
	return false
}

// configPlatform returns the platform a config claims; what it leaves open
// is taken to be as wanted.
func configPlatform(config []byte, wanted ocispec.Platform) (ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return p, fmt.Errorf("read config: %w", err)
	}
	if p.OS == "" {
		p.OS = wanted.OS
	}
	if p.Architecture == "" {
		p.Architecture, p.Variant = wanted.Architecture, wanted.Variant
	}
	return platforms.Normalize(p), nil
}

// platformError is an image that isn't there for the platform wanted.
type platformError struct {
	wanted string
	there  []string
}

func (e *platformError) Error() string {
	there := "it has none that can be told"
	if len(e.there) > 0 {
		there = "it has " + strings.Join(e.there, ", ")
	}
	return fmt.Sprintf("no image for platform %s; %s", e.wanted, there)
}

// Is says that what was asked for isn't there.
func (e *platformError) Is(target error) bool { return target == ErrNotFound }

func noPlatform(s keeper, p ocispec.Platform, there []string) *Error {
	for i := range there {
		there[i] = words.Line(there[i])
	}
	slices.Sort(there)
	return s.fail("resolve", "", &platformError{wanted: platforms.Format(p), there: slices.Compact(there)})
}
