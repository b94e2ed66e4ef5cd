package executor

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A product is the finished image in one format: that of each platform and, with
// more than one, the index over them.
type product struct {
	images []*assembled
	index  []byte             // nil: there is one image
	desc   ocispec.Descriptor // of what a name of the product stands for
}

// assembled is a finished image for one platform: the documents as they are sent.
type assembled struct {
	config, manifest []byte
	configDesc, desc ocispec.Descriptor
	layers           []registry.Layer
}

// platforms returns what is built for, in the order of the plans.
func (b *build) platforms() []ocispec.Platform {
	var all []ocispec.Platform
	for _, p := range b.plans {
		all = append(all, p.Target().TargetPlatform())
	}
	return all
}

// produce writes the documents of the image in format f over the states of all
// platforms, whose layers must be complete.
func (b *build) produce(states []*state, f *Format) (*product, error) {
	out := &product{}
	targets := b.platforms()
	for i, st := range states {
		img, err := b.assemble(st, f, targets[i])
		if err != nil {
			return nil, err
		}
		out.images = append(out.images, img)
	}
	if len(states) == 1 {
		out.desc = out.images[0].desc
		return out, nil
	}
	mediaType, _, _ := f.mediaTypes()
	index := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   mediaType,
		Annotations: f.annotations(OnIndex, ocispec.Platform{}),
	}
	for i, img := range out.images {
		desc := img.desc
		desc.Platform = &targets[i]
		index.Manifests = append(index.Manifests, desc)
	}
	var err error
	if out.index, err = json.MarshalIndent(index, "", "  "); err != nil {
		return nil, fmt.Errorf("image index: %w", err)
	}
	out.desc = descriptorOf(mediaType, out.index)
	out.desc.Annotations = f.annotations(OnIndexDescriptor, ocispec.Platform{})
	return out, nil
}

// assemble returns the config and the manifest of the image that st is, for p in
// format f.
func (b *build) assemble(st *state, f *Format, p ocispec.Platform) (*assembled, error) {
	img := st.image
	history := st.history
	if st.missing != nil {
		history = append(slices.Clip(history), *st.missing)
	}
	img.History = completeHistory(history, len(st.layers))
	if b.plan.Epoch != nil {
		clampHistory(img.History, st.base, *b.plan.Epoch)
	}
	img.Created = lastCreated(img.History)
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	_, manifestType, configType := f.mediaTypes()
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: manifestType,
		Layers:    []ocispec.Descriptor{},
	}
	inputs, err := b.inputs()
	if err != nil {
		return nil, err
	}
	for _, annotations := range []map[string]string{inputs, f.annotations(OnManifest, p)} {
		for key, value := range annotations {
			if manifest.Annotations == nil {
				manifest.Annotations = make(map[string]string)
			}
			manifest.Annotations[key] = value
		}
	}
	out := &assembled{}
	for _, l := range st.layers {
		bl := l.in(f)
		desc, err := f.descriptor(bl.desc)
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, desc)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, bl.diffID)
		out.layers = append(out.layers, registry.Layer{Descriptor: desc, DiffID: bl.diffID})
	}
	whole := struct {
		dockerspec.DockerOCIImage

		Cache *cacheRecords `json:"bob.cache.v0,omitempty"`
	}{img, b.inlineCache(st, f)}
	if out.config, err = json.Marshal(whole); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	out.configDesc = descriptorOf(configType, out.config)
	manifest.Config = out.configDesc
	if out.manifest, err = json.MarshalIndent(manifest, "", "  "); err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	out.desc = descriptorOf(manifestType, out.manifest)
	out.desc.Annotations = f.annotations(OnManifestDescriptor, p)
	return out, nil
}

func descriptorOf(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}
