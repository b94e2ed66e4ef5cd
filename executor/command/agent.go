package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/bounded"
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
