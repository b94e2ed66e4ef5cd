package oci

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/opencontainers/go-digest"
)

// What an error is to callers that branch. Use errors.Is.
var (
	// ErrNotFound says that the keeper doesn't have a manifest, repository or blob, or
	// doesn't show it to this user.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt says that content doesn't have the promised digest or size.
	ErrCorrupt = errors.New("content is not what was promised")
)

// What can fail, as errors name it.
const (
	OpResolve      = "resolve"
	OpPullManifest = "pull manifest"
	OpPullConfig   = "pull config"
	OpPullBlob     = "pull blob"
)

// A SpoiledError says that bytes don't have the promised digest or size. They may have
// been damaged on their way. It is [ErrCorrupt].
type SpoiledError struct{ cause error }

// Error tells what was promised and what came.
func (e *SpoiledError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *SpoiledError) Unwrap() error { return e.cause }

// Spoiled returns the error for bytes that differ from what was promised.
func Spoiled(format string, args ...any) error {
	return &SpoiledError{fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)}
}

// An Error is a failure to read from a keeper on this machine. Registries have an error
// type of their own.
type Error struct {
	Op      string // one of those above, "copy", …
	Subject string // where it was to be read, as the user names it
	Digest  string // of the blob in question; "" when it isn't about one
	Err     error  // the cause
}

// Error says what failed, on what, and why.
func (e *Error) Error() string {
	subject := e.Subject
	if e.Digest != "" && !strings.Contains(subject, e.Digest) {
		subject = e.Digest + " of " + subject
	}
	return e.Op + " " + subject + ": " + words.Redact(e.Err.Error())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Blob returns the operation and its blob; the digest is "" if the error isn't about a
// blob.
func (e *Error) Blob() (op string, d digest.Digest) { return e.Op, digest.Digest(e.Digest) }

// LostBlob returns the blob that is missing or damaged, and the error that says so, if
// err is or wraps such an error. Otherwise the digest is "".
func LostBlob(err error) (digest.Digest, error) {
	type blobError interface {
		error
		Blob() (op string, d digest.Digest)
	}
	for e, ok := errors.AsType[blobError](err); ok; e, ok = errors.AsType[blobError](errors.Unwrap(e)) {
		if op, d := e.Blob(); op == OpPullBlob && (errors.Is(e, ErrNotFound) || errors.Is(e, ErrCorrupt)) {
			return d, e
		}
	}
	return "", nil
}
