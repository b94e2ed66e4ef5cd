package registry

import (
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/google/go-containerregistry/pkg/name"
)

// hubHost is how references write Docker Hub; name.DefaultRegistry is where it
// answers.
const hubHost = "docker.io"

// parseReference reads [host/]repository[:tag][@digest]. A digest wins over a
// tag beside it.
func parseReference(ref string) (name.Reference, error) {
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

// displayHost is the host as people write it.
func displayHost(reg name.Registry) string {
	if reg.RegistryStr() == name.DefaultRegistry {
		return hubHost
	}
	return reg.RegistryStr()
}

// displayRepository is the repository with its host, as people write it.
func displayRepository(repo name.Repository) string {
	return displayHost(repo.Registry) + "/" + repo.RepositoryStr()
}

// displayReference is the whole reference, tag or digest included.
func displayReference(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	return displayRepository(ref.Context()) + separator + ref.Identifier()
}
