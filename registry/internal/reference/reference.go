// Package reference reads the names of images and writes them as people do.
package reference

import (
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/google/go-containerregistry/pkg/name"
)

// Hub is how references write Docker Hub. name.DefaultRegistry is where it answers.
const Hub = "docker.io"

// Parse reads [host/]repository[:tag][@digest]. A digest wins over a tag beside it.
func Parse(ref string) (name.Reference, error) {
	if strings.Contains(ref, "://") {
		return nil, fmt.Errorf("parse reference %q: write it without a scheme", words.Redact(ref))
	}
	var (
		parsed name.Reference
		err    error
	)
	if strings.Contains(ref, "@") {
		parsed, err = name.NewDigest(ref)
	} else {
		parsed, err = name.NewTag(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("parse reference %q: %w", ref, err)
	}
	return parsed, nil
}

// Host returns the host as people write it.
func Host(reg name.Registry) string {
	if reg.RegistryStr() == name.DefaultRegistry {
		return Hub
	}
	return reg.RegistryStr()
}

// Repository returns the repository with its host.
func Repository(repo name.Repository) string {
	return Host(repo.Registry) + "/" + repo.RepositoryStr()
}

// String returns the whole reference, tag or digest included.
func String(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	return Repository(ref.Context()) + separator + ref.Identifier()
}
