package executor

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/sandbox"
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

// Read returns the bytes of the secret. More than MaxSecretSize are an error.
func (s Secret) Read() ([]byte, error) {
	data := s.Data
	if s.File != "" {
		var err error
		if data, err = os.ReadFile(s.File); err != nil {
			return nil, err
		}
	}
	if len(data) > MaxSecretSize {
		return nil, fmt.Errorf("%d bytes are more than the %d that a secret may have", len(data), MaxSecretSize)
	}
	return data, nil
}

// secret gives the process a secret. An optional one that wasn't given leaves no
// file, and an empty variable, as in BuildKit.
func (m *mounting) secret(spec *dockerfile.SecretMount) error {
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
	data, err := s.Read()
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
