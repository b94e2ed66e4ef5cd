package image

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

// What the tests look at from inside.
var (
	CompleteHistory = completeHistory
	ClampHistory    = clampHistory
	LastCreated     = lastCreated
)

// LayerDescriptor is how a manifest of f names the blob d.
func LayerDescriptor(f Format, d ocispec.Descriptor) (ocispec.Descriptor, error) {
	return f.descriptor(d)
}
