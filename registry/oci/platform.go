package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxUnnamed bounds how many manifests of an index that doesn't tell their
// platforms are opened to find out.
const maxUnnamed = 16

// Choose follows doc to the image for p. A manifest is taken whatever its platform: only
// an index offers a choice. BuildKit does so too, and warns. Variants match as containerd
// matches them: an arm/v7 image does for arm64, 386 for amd64, when there is nothing
// better. An index without an image for p is an error that lists those there are.
func Choose(ctx context.Context, k Keeper, doc *Document, p ocispec.Platform) (*Image, error) {
	return rooted(doc)(choose(ctx, k, doc, p, 0))
}

// Pick is like [Choose] but also refuses a single manifest for another platform.
func Pick(ctx context.Context, k Keeper, doc *Document, p ocispec.Platform) (*Image, error) {
	return rooted(doc)(choose(ctx, k, doc, p, 1))
}

// ChooseArtifact is [Choose] that also takes a manifest which is no image but whose config
// is of type configType. The result then has no Layers: what the blobs of its Manifest are
// is for the config to tell.
func ChooseArtifact(ctx context.Context, k Keeper, doc *Document, p ocispec.Platform, configType string) (*Image, error) {
	if doc.IsIndex() || doc.configType() != configType {
		return Choose(ctx, k, doc, p)
	}
	return rooted(doc)(artifact(ctx, k, doc))
}

// rooted notes what an image was found by.
func rooted(doc *Document) func(*Image, error) (*Image, error) {
	return func(im *Image, err error) (*Image, error) {
		if err == nil {
			im.Root = doc.Digest
		}
		return im, err
	}
}

// choose follows doc to the image for p. A manifest at depth 0 is taken whatever its
// platform.
func choose(ctx context.Context, k Keeper, doc *Document, p ocispec.Platform, depth int) (*Image, error) {
	if !doc.IsIndex() {
		im, err := image(ctx, k, doc)
		if err != nil || depth == 0 {
			return im, err
		}
		has, err := configPlatform(im.Config, p)
		if err != nil {
			return nil, k.Fail(OpPullConfig, im.Manifest.Config.Digest.String(), err)
		}
		if !platforms.Only(p).Match(has) {
			return nil, noPlatform(k, p, []string{platforms.Format(has)})
		}
		return im, nil
	}
	if depth == MaxNesting {
		return nil, k.Fail(OpPullManifest, "", fmt.Errorf("%w: indexes nested more than %d deep", ErrCorrupt, MaxNesting))
	}
	named, unnamed, there, err := readIndex(doc.Body, p)
	if err != nil {
		return nil, k.Fail(OpPullManifest, "", err)
	}
	if len(named) > 0 {
		child, err := k.Manifest(ctx, named[0])
		if err != nil {
			return nil, err
		}
		if child.IsIndex() {
			return choose(ctx, k, child, p, depth+1)
		}
		// The index takes precedence, since configs of old tools say less.
		return image(ctx, k, child)
	}
	for _, d := range unnamed[:min(len(unnamed), maxUnnamed)] {
		child, err := k.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		im, err := choose(ctx, k, child, p, depth+1)
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
	return nil, noPlatform(k, p, there)
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
		case isAttestation(d), !IsManifestType(d.MediaType):
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

// isAttestation reports whether d is BuildKit's provenance or SBOM of another entry.
func isAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] != "" ||
		(d.Platform != nil && d.Platform.OS == "unknown")
}

// configPlatform returns the platform of a config. Fields that the config leaves open
// are taken from the wanted platform.
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

// platformError says that there is no image for the wanted platform.
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

// Is matches [ErrNotFound].
func (e *platformError) Is(target error) bool { return target == ErrNotFound }

func noPlatform(k Keeper, p ocispec.Platform, there []string) error {
	for i := range there {
		there[i] = words.Line(there[i])
	}
	slices.Sort(there)
	return k.Fail(OpResolve, "", &platformError{wanted: platforms.Format(p), there: slices.Compact(there)})
}
