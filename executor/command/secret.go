package command

import (
	"context"

	"github.com/bobbuild/bob/snapshot/bounded"
)

// MaxSecretSize is how many bytes a secret may have, as in BuildKit.
const MaxSecretSize = 500 << 10

// A Secret is what --mount=type=secret shows a RUN, and nobody else.
type Secret struct {
	// File is read each time a RUN uses the secret. It is empty if the secret
	// is Data.
	File string
	Data []byte
}

// Read returns the bytes of the secret, which the caller must not change. More than
// MaxSecretSize bytes are an error. Read ends with ctx.
func (s Secret) Read(ctx context.Context) ([]byte, error) {
	if s.File != "" {
		return bounded.ReadFile(ctx, s.File, MaxSecretSize)
	}
	if len(s.Data) > MaxSecretSize {
		return nil, &bounded.LimitError{Limit: MaxSecretSize}
	}
	return s.Data, nil
}
