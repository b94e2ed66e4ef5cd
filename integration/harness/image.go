package harness

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BaseMark ends the created_by of each layer of a base image, so that what a
// build put on top can be told from it.
const BaseMark = "of a test base"

// A BaseImage is made by the harness and pushed to the registries.
type BaseImage struct {
	Layers []v1.Layer
	Config v1.Config
}

// Push makes an image of base, for this machine's architecture, and pushes it to ref.
func (r *Registry) Push(ctx context.Context, ref string, base *BaseImage) error {
	image, err := base.image(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return err
	}
	tag, options, err := r.destination(ctx, ref)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, image, options...); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// PushIndex pushes an index of base images by platform, as in linux/arm/v7, to
// ref. It returns the digests of the images by platform, and under "index" that
// of the index.
func (r *Registry) PushIndex(ctx context.Context, ref string, bases map[string]*BaseImage) (map[string]string, error) {
	digests := map[string]string{}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range slices.Sorted(maps.Keys(bases)) {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		image, err := bases[name].image(*platform)
		if err != nil {
			return nil, err
		}
		digest, err := image.Digest()
		if err != nil {
			return nil, err
		}
		digests[name] = digest.String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	digests["index"] = digest.String()
	tag, options, err := r.destination(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := remote.WriteIndex(tag, index, options...); err != nil {
		return nil, fmt.Errorf("push %s: %w", ref, err)
	}
	return digests, nil
}

func (r *Registry) destination(ctx context.Context, ref string) (name.Tag, []remote.Option, error) {
	options := []remote.Option{remote.WithContext(ctx)}
	if r.guard != nothing {
		options = append(options, remote.WithAuth(&authn.Basic{Username: GuardedUser, Password: GuardedPassword}))
	}
	tag, err := name.NewTag(ref, name.Insecure)
	return tag, options, err
}

func (b *BaseImage) image(platform v1.Platform) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant, file.Config = platform.OS, platform.Architecture, platform.Variant, b.Config
	file.Created = v1.Time{Time: time.Unix(1700000000, 0).UTC()}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, err
	}
	for i, layer := range b.Layers {
		if image, err = mutate.Append(image, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{CreatedBy: fmt.Sprintf("layer %d %s", i, BaseMark), Created: file.Created},
		}); err != nil {
			return nil, err
		}
	}
	return image, nil
}
