package executor

import (
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What the tests look at from inside.
var (
	CompleteHistory = completeHistory
	ClampHistory    = clampHistory
	LastCreated     = lastCreated
	LookupUser      = lookupUser
	LookupOwner     = lookupOwner
	SystemBundle    = systemBundle
	OCIMediaType    = ociMediaType
)

// KeyOf is the key of some values of a kind.
func KeyOf(kind string, values ...string) string {
	k := newKey(kind)
	for _, v := range values {
		k = k.str(v)
	}
	return k.sum().String()
}

// KeyOfLists is the key of some lists.
func KeyOfLists(lists ...[]string) string {
	k := newKey("lists")
	for _, l := range lists {
		k = k.list(l)
	}
	return k.sum().String()
}

// LayerDescriptor is how a manifest of f names the blob d.
func LayerDescriptor(f Format, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	return f.descriptor(d)
}

// MountKeyOf is what keys hold of the mounts of a RUN without contents.
func MountKeyOf(mounts ...dockerfile.Mount) (string, error) {
	k, err := mountKey(newKey("test"), &dockerfile.Run{Mounts: mounts}, make(mountSources, len(mounts)))
	return k.sum().String(), err
}

// UlimitKeyOf is what keys hold of limits.
func UlimitKeyOf(all ...sandbox.Ulimit) string { return newKey("test").ulimits(all).sum().String() }

// PlatformKeyOf is what keys hold of a platform.
func PlatformKeyOf(p ocispec.Platform) string { return newKey("test").platform(p).sum().String() }

// ReadRecords reads the config of a cache with these layers, and returns the records
// and how many steps, links and mounts are taken from them.
func ReadRecords(config []byte, layers []ocispec.Descriptor) (rec any, steps, links, mounts int, err error) {
	img := &registry.Image{Config: config}
	img.Manifest.Config.MediaType, img.Manifest.Layers = CacheConfigType, layers
	r, err := readCacheRecords(img)
	if err != nil {
		return nil, 0, 0, 0, err
	}
	c := (&build{}).newImportedCache(img, r)
	return r, len(c.steps), len(c.links), len(c.mounts), nil
}
