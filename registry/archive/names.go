package archive

import (
	"fmt"

	"github.com/distribution/reference"
)

// dockerManifestFile names the images of a docker archive.
const dockerManifestFile = "manifest.json"

// annotationImageName is where containerd and docker look for the whole name of
// an image in a layout; org.opencontainers.image.ref.name holds the tag alone.
const annotationImageName = "io.containerd.image.name"

// CheckName says why ref can't name an image of a docker archive.
func CheckName(ref string) error {
	_, err := normalizeName(ref)
	return err
}

func normalizeName(ref string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", ref, err)
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, fmt.Errorf("name %q: a tag is needed, not a digest", ref)
	}
	return tagged, nil
}
