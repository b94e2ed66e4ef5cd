package dockerfile

import (
	"strings"

	"github.com/distribution/reference"
)

// normalise returns the full form of an image reference.
func normalise(name string) (string, error) {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(ref).String(), nil
}

// familiar returns the shortest form of a reference, without ":latest".
func familiar(name string) (string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest"), nil
}

// isOwnFrontend tells whether the reference of a syntax directive names the
// frontend whose language this package understands, in whatever version.
func isOwnFrontend(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	return named.Name() == "docker.io/docker/dockerfile" || named.Name() == "docker.io/docker/dockerfile-upstream"
}

// isNameOf reports whether name, as it is written, means the reference. It doesn't if a
// named context took the place of name.
func isNameOf(name, reference string) bool {
	own, err := normalise(name)
	return err == nil && own == reference
}
