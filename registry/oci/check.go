package oci

import (
	"fmt"
	"io"

	"github.com/bobbuild/bob/registry/internal/words"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ReadBounded reads all of r, which may have at most limit bytes.
func ReadBounded(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: larger than the %d MiB allowed", ErrCorrupt, limit>>20)
	}
	return body, nil
}

// TooLarge says that something has more bytes than the limit.
func TooLarge(size, limit int64) error {
	return fmt.Errorf("%w: %d bytes are more than the %d MiB allowed", ErrCorrupt, size, limit>>20)
}

// Verify checks a body against its descriptor. A size of -1 isn't known.
func Verify(body []byte, want ocispec.Descriptor) error {
	if want.Size >= 0 && int64(len(body)) != want.Size {
		return Spoiled("%d bytes instead of %d", len(body), want.Size)
	}
	if got := want.Digest.Algorithm().FromBytes(body); got != want.Digest {
		return Spoiled("digest %s instead of %s", got, want.Digest)
	}
	return nil
}

// CheckDescriptors checks all, which are counted from 1.
func CheckDescriptors(what string, all []ocispec.Descriptor) error {
	for i, d := range all {
		if err := CheckDescriptor(fmt.Sprintf("%s %d", what, i+1), d); err != nil {
			return err
		}
	}
	return nil
}

// CheckDescriptor refuses a descriptor that can't be true.
func CheckDescriptor(subject string, d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: the %s's digest %q: %w", ErrCorrupt, subject, words.Line(d.Digest.String()), err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%w: the %s has %d bytes", ErrCorrupt, subject, d.Size)
	}
	return nil
}
