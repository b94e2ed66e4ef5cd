package cache

import (
	"github.com/bobbuild/bob/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadRecords reads the config of a cache with these layers, and returns the records
// and how many steps, links and mounts are taken from them.
func ReadRecords(config []byte, layers []ocispec.Descriptor) (rec any, steps, links, mounts int, err error) {
	img := &registry.Image{Config: config}
	img.Manifest.Config.MediaType, img.Manifest.Layers = ConfigType, layers
	r, err := readRecords(img)
	if err != nil {
		return nil, 0, 0, 0, err
	}
	i := New(Options{}).read(img, r)
	return r, len(i.steps), len(i.links), len(i.mounts), nil
}
