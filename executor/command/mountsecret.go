package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot/owners"
)

// secret gives the process a secret. An optional one that wasn't given leaves no
// file, and an empty variable, as in BuildKit.
func (m *mounting) secret(ctx context.Context, spec *dockerfile.SecretMount) error {
	s, given := m.Secrets[spec.ID]
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

// agent gives the process the socket of an agent. As in BuildKit, the variable is set
// for the first agent even if the agent wasn't given, but not if the variable exists.
func (m *mounting) agent(ctx context.Context, spec *dockerfile.SSHMount) error {
	target := spec.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", m.agents)
	}
	if !slices.ContainsFunc(m.process.Env, func(kv string) bool { return strings.HasPrefix(kv, "SSH_AUTH_SOCK=") }) {
		m.setenv("SSH_AUTH_SOCK", target)
	}
	m.agents++
	a, given := m.SSH[spec.ID]
	if !given {
		if !spec.Required {
			return nil
		}
		return fmt.Errorf("no SSH key %q forwarded: give it with --ssh %s", spec.ID, spec.ID)
	}
	socket := filepath.Join(m.dir, fmt.Sprintf("agent%d", m.agents))
	stop, err := a.listen(ctx, socket, spec.Owner, m.Store.Owners())
	if err != nil {
		return fmt.Errorf("ssh mount on %s: %w", target, err)
	}
	m.undo = append(m.undo, stop)
	m.process.Private = true
	m.process.Mounts = append(m.process.Mounts, sandbox.Mount{Source: socket, Target: target})
	return nil
}

// listen serves the agent on a socket that it makes, until stop is called.
func (a *SSHAgent) listen(ctx context.Context, socket string, owner dockerfile.MountOwner, keeper owners.Keeper) (stop func() error, err error) {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// The address of a socket may have no more than 107 bytes.
	address := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", address)
	if err != nil {
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:forcetypeassert // of network "unix"
	owner.Mode &= 0o777
	if err := give(socket, owner, keeper); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			all.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				_ = a.serve(ctx, conn) // the command sees the connection end
			})
		}
	})
	return func() error {
		cancel()
		err := listener.Close()
		all.Wait()
		return err
	}, nil
}
