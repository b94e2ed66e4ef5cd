package executor

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/sandbox"
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

// Read returns the bytes of the secret, which nobody changes. More than MaxSecretSize
// are an error. It ends with ctx.
func (s Secret) Read(ctx context.Context) ([]byte, error) {
	if s.File != "" {
		return bounded.ReadFile(ctx, s.File, MaxSecretSize)
	}
	if len(s.Data) > MaxSecretSize {
		return nil, &bounded.LimitError{Limit: MaxSecretSize}
	}
	return s.Data, nil
}

// secret gives the process a secret. An optional one that wasn't given leaves no
// file, and an empty variable, as in BuildKit.
func (m *mounting) secret(ctx context.Context, spec *dockerfile.SecretMount) error {
	s, given := m.opts.Secrets[spec.ID]
	if !given {
		if !spec.Required {
			if spec.Env != "" {
				m.setenv(spec.Env, "")
			}
			return nil
		}
		return fmt.Errorf("secret %s: not found: give it with --secret id=%s,src=PATH or --secret id=%s,env=NAME", spec.ID, spec.ID, spec.ID)
	}
	data, err := s.Read(ctx)
	if err != nil {
		return fmt.Errorf("secret %s: %w", spec.ID, err)
	}
	m.process.Private = true
	if spec.Env != "" {
		if bytes.IndexByte(data, 0) >= 0 {
			return fmt.Errorf("secret %s: holds a zero byte, which no variable can: mount it as a file", spec.ID)
		}
		m.setenv(spec.Env, string(data))
	}
	if spec.Target != "" {
		m.process.Mounts = append(m.process.Mounts, sandbox.Mount{
			Kind: sandbox.Memory, Target: spec.Target,
			File: sandbox.File{Content: data, UID: spec.Owner.UID, GID: spec.Owner.GID, Mode: spec.Owner.Mode},
		})
	}
	return nil
}

// setenv sets a variable of the process alone.
func (m *mounting) setenv(name, value string) {
	env := slices.DeleteFunc(slices.Clone(m.process.Env), func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	m.process.Env = append(env, name+"="+value)
}
