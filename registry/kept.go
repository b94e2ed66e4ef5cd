package registry

import (
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Documents keeps values by a kind and a digest, as a snapshot.Store does. Its methods may
// be called concurrently.
type Documents interface {
	// Record returns a value. Any error means that it isn't kept.
	Record(kind string, key digest.Digest) ([]byte, error)
	// PutRecord keeps a value.
	PutRecord(kind string, key digest.Digest, value []byte) error
}

// keptDocument is the kind of the bytes of manifests and configs. The number counts up
// whenever what is kept changes.
const keptDocument = "document-1"

// keptDocuments keeps the bytes of manifests and configs.
type keptDocuments struct {
	in Documents // nil keeps nothing
}

// get returns the bytes of the document d, verified, or nil if they are not kept.
func (k keptDocuments) get(d ocispec.Descriptor) []byte {
	if k.in == nil || d.Digest.Validate() != nil {
		return nil
	}
	body, err := k.in.Record(keptDocument, d.Digest)
	if err != nil || oci.Verify(body, d) != nil {
		return nil
	}
	return body
}

// put keeps the verified bytes of the document d. It doesn't matter if it can't: they are
// got anew then.
func (k keptDocuments) put(d digest.Digest, body []byte) {
	if k.in != nil {
		_ = k.in.PutRecord(keptDocument, d, body)
	}
}
