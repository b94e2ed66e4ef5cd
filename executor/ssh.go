package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// maxKeySize bounds a file with a private key, in bytes.
const maxKeySize = 100 << 10

// An SSHAgent is what --mount=type=ssh lets a RUN ask for signatures. Its
// commands may list keys and have data signed, and nothing else.
type SSHAgent struct {
	socket string
	keys   agent.Agent
}

// NewSSHAgent returns the agent that listens on the socket paths[0], or one in
// this process with the private keys of all the paths.
func NewSSHAgent(ctx context.Context, paths []string) (*SSHAgent, error) {
	a := &SSHAgent{keys: agent.NewKeyring()}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Mode()&fs.ModeSocket != 0 {
			if len(paths) > 1 {
				return nil, fmt.Errorf("%s is the socket of an agent, which can't be joined with others or with keys", path)
			}
			a.socket, err = filepath.Abs(path)
			return a, err
		}
		if err := a.addKey(ctx, path); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *SSHAgent) addKey(ctx context.Context, path string) error {
	text, err := bounded.ReadFile(ctx, path, maxKeySize)
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if _, ok := errors.AsType[*ssh.PassphraseMissingError](err); ok {
		return fmt.Errorf("%s: the key has a passphrase: add it to an agent with ssh-add and name that", path)
	}
	if err != nil {
		return fmt.Errorf("%s: neither a socket nor a private key: %w", path, err)
	}
	if err := a.keys.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Dial returns a connection to the agent, which answers until that is closed or
// ctx ends.
func (a *SSHAgent) Dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	go func() {
		defer stop()
		_ = a.serve(ctx, far) // its end is the connection's
		_ = far.Close()
	}()
	return near, nil
}

// serve answers one connection until either side ends it.
func (a *SSHAgent) serve(ctx context.Context, conn net.Conn) error {
	if a.socket == "" {
		return agent.ServeAgent(readOnlyAgent{a.keys}, conn)
	}
	to, err := (&net.Dialer{}).DialContext(ctx, "unix", a.socket)
	if err != nil {
		return err
	}
	defer to.Close()
	return agent.ServeAgent(readOnlyAgent{agent.NewClient(to)}, conn)
}

var errReadOnlyAgent = errors.New("a build may only list keys and sign")

// A readOnlyAgent refuses whatever would change the agent.
type readOnlyAgent struct{ agent.Agent }

func (readOnlyAgent) Add(agent.AddedKey) error   { return errReadOnlyAgent }
func (readOnlyAgent) Remove(ssh.PublicKey) error { return errReadOnlyAgent }
func (readOnlyAgent) RemoveAll() error           { return errReadOnlyAgent }
func (readOnlyAgent) Lock([]byte) error          { return errReadOnlyAgent }
func (readOnlyAgent) Unlock([]byte) error        { return errReadOnlyAgent }

func (a readOnlyAgent) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	extended, ok := a.Agent.(agent.ExtendedAgent)
	if !ok {
		return a.Sign(key, data)
	}
	return extended.SignWithFlags(key, data, flags)
}

func (readOnlyAgent) Extension(string, []byte) ([]byte, error) {
	return nil, agent.ErrExtensionUnsupported
}

// agent gives the process the socket of an agent. The variable is set for the
// first one even if it wasn't given, as in BuildKit, but not if there is one.
func (m *mounting) agent(ctx context.Context, spec *dockerfile.SSHMount) error {
	target := spec.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", m.agents)
	}
	if !slices.ContainsFunc(m.process.Env, func(kv string) bool { return strings.HasPrefix(kv, "SSH_AUTH_SOCK=") }) {
		m.setenv("SSH_AUTH_SOCK", target)
	}
	m.agents++
	a, given := m.opts.SSH[spec.ID]
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
				_ = a.serve(ctx, conn) // the command sees that it ends
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
