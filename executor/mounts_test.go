package executor_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/sandbox"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keyFile writes a new private key.
func keyFile(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestSSHAgentIsReadOnly talks to the socket that a RUN is given, in front of
// keys and of another agent.
func TestSSHAgentIsReadOnly(t *testing.T) {
	keys, err := command.NewSSHAgent(t.Context(), []string{keyFile(t), keyFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	var forwarded *command.SSHAgent
	talk := func(ctx context.Context, p *sandbox.Process) error {
		if !slices.Contains(p.Env, "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0") {
			t.Errorf("environment is %q", p.Env)
		}
		if len(p.Mounts) != 1 || p.Mounts[0].Target != "/run/buildkit/ssh_agent.0" || !p.Private {
			t.Fatalf("mounts are %+v, private: %t", p.Mounts, p.Private)
		}
		socket := shortPath(t, p.Mounts[0].Source)
		askAgent(ctx, t, socket)
		if forwarded == nil {
			if forwarded, err = command.NewSSHAgent(ctx, []string{socket}); err != nil {
				t.Fatal(err)
			}
			inner := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
				askAgent(ctx, t, shortPath(t, p.Mounts[0].Source))
				return nil
			})
			o := executor.Options{SSH: map[string]*command.SSHAgent{"default": forwarded}}
			if _, err := inner.build(ctx, "FROM scratch\nRUN --mount=type=ssh,required x\n", o); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	k := newKit(t, talk)
	k.mustBuild("FROM scratch\nRUN --mount=type=ssh x\n", executor.Options{SSH: map[string]*command.SSHAgent{"default": keys}})
	k.clean()
}

// shortPath returns another path of a socket: addresses are short.
func shortPath(t *testing.T, socket string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // t.TempDir is too long for an address
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	link := filepath.Join(dir, "s")
	if err := os.Symlink(socket, link); err != nil {
		t.Fatal(err)
	}
	return link
}

// askAgent lists, signs, and is refused everything else.
func askAgent(ctx context.Context, t *testing.T, socket string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	keys, err := client.List()
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys are %v, %v", keys, err)
	}
	signature, err := client.Sign(keys[0], []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := keys[0].Verify([]byte("data"), signature); err != nil {
		t.Error(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"add": client.Add(agent.AddedKey{PrivateKey: key}), "remove": client.Remove(keys[0]),
		"remove all": client.RemoveAll(), "lock": client.Lock([]byte("x")), "unlock": client.Unlock([]byte("x")),
	} {
		if err == nil {
			t.Errorf("a command may %s", name)
		}
	}
	if keys, err = client.List(); err != nil || len(keys) != 2 {
		t.Errorf("keys are %v, %v", keys, err)
	}
}

// TestSecretsAreNowhere looks for a secret in everything that a build leaves.
func TestSecretsAreNowhere(t *testing.T) {
	const secret = "the bytes of this test's secret"
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
		with := slices.Contains(p.Env, "TOKEN="+secret) && len(p.Mounts) == 1 && string(p.Mounts[0].File.Content) == secret
		without := !strings.Contains(strings.Join(p.Env, " "), secret) && len(p.Mounts) == 0
		if last := p.Args[len(p.Args)-1]; last == "with=1" && !with || last == "without=1" && !without || p.Private != with {
			t.Errorf("%s has %q and %+v, private: %t", last, p.Env, p.Mounts, p.Private)
		}
		if err := grepStore(storeOf(p), secret); err != nil {
			t.Error(err)
		}
		return shell(ctx, p)
	})
	text := "FROM scratch\nRUN --mount=type=secret,id=a --mount=type=secret,id=b,env=TOKEN with=1\nRUN without=1\n"
	o := executor.Options{
		Tags:    []string{k.host + "/app:1"},
		Secrets: map[string]command.Secret{"a": {File: file}, "b": {Data: []byte(secret)}},
	}
	k.mustBuild(text, o)
	if err := grepStore(k.store, secret); err != nil {
		t.Error(err)
	}
	img, files := k.pull(k.host + "/app:1")
	config, err := img.RawConfigFile()
	if err != nil || bytes.Contains(config, []byte(secret)) || files["/with"] != "1" || len(files) != 2 {
		t.Errorf("config is %s, %v, files are %q", config, err, files)
	}
	for _, e := range k.events {
		if strings.Contains(e.Name+e.Err+string(e.Data), secret) {
			t.Errorf("event %+v", e)
		}
	}
	// What a secret holds is no part of a key.
	k.taken()
	o.Secrets = map[string]command.Secret{"a": {Data: []byte("another")}, "b": {Data: []byte("another")}}
	k.mustBuild(text, o)
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
	k.clean()
}

// storeOf returns the store that the process's root is in.
func storeOf(p *sandbox.Process) string {
	return p.Root[:strings.Index(p.Root, "/ids/")]
}

var errFound = errors.New("the secret is in the store")

// grepStore returns an error if a file below dir holds the secret.
func grepStore(dir, secret string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if bytes.Contains(content, []byte(secret)) {
			return errFound
		}
		return err
	})
}
