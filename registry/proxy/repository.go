package proxy

import (
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
)

// maxSeen is how many digests of manifests are remembered of a repository.
const maxSeen = 1 << 16

// A repository is the repository of an alias or of a mirror request.
type repository struct {
	name.Repository
	alias   string            // "" of mirrors
	ref     name.Reference    // what a tag becomes; nil of mirrors
	seen    *ledger[struct{}] // digests of manifests; nil of mirrors
	login   authn.AuthConfig  // zero: no login is known
	guarded bool              // see newCarriers
}

// identifier returns the tag or digest that a request for a manifest is about: the
// client's if it is a digest that was seen, else the reference's.
func (r *repository) identifier(t *target) (string, error) {
	if r.ref == nil {
		return t.ref, nil
	}
	if t.digest == "" || t.ref == r.ref.Identifier() {
		return r.ref.Identifier(), nil
	}
	if _, seen := r.seen.get(t.ref); !seen {
		return "", &refusal{
			status: http.StatusNotFound, code: "MANIFEST_UNKNOWN",
			message: "the proxy hasn't seen this digest in " + r.alias + "; ask for the tag first",
		}
	}
	return t.ref, nil
}

// see notes digests of manifests that the client may ask for.
func (r *repository) see(digests ...digest.Digest) {
	if r.seen == nil {
		return
	}
	for _, d := range digests {
		if d.Validate() == nil {
			r.seen.put(d.String(), struct{}{})
		}
	}
}
