package integration_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// sshAgent has programs in a RUN, of root and of another user, list the keys of an
// agent and have it sign, and shows that they can't change it. The image of b has
// ssh-add and ssh-keygen.
func sshAgent(t *testing.T, b *workbench) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	_, own, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(own, "")
	check(t, err)
	key, err := ssh.NewPublicKey(public)
	check(t, err)
	const use = "ssh-add -l | grep ED25519 && ! ssh-add -D 2>/dev/null && ssh-add -l >/dev/null && " +
		"echo text | ssh-keygen -q -Y sign -n file -f /key.pub > /tmp/sig && " +
		"echo text | ssh-keygen -Y check-novalidate -n file -s /tmp/sig && rm /tmp/sig\n"
	b.write(map[string]string{
		"ssh/key.pub": string(ssh.MarshalAuthorizedKey(key)),
		"key":         string(pem.EncodeToMemory(block)),
		"ssh/Dockerfile": "FROM " + b.ref + "\nCOPY key.pub /\n" +
			"RUN --mount=type=ssh " + use +
			"RUN --mount=type=ssh,id=own ssh-add -l | grep ED25519 && ! ssh-add -l | grep -q -f /key.pub\n" +
			"USER daemon\n" +
			"RUN --mount=type=ssh,uid=1,required --network=none " + use +
			"RUN --mount=type=ssh ! ssh-add -l 2>/dev/null\n" + // of root
			"RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit\n",
	})
	keyring := agent.NewKeyring()
	check(t, keyring.Add(agent.AddedKey{PrivateKey: &private}))
	socket := b.dir + "/agent"
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	check(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	check(t, lab.User.Own(socket))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				_ = agent.ServeAgent(keyring, conn) // until the client has enough
				_ = conn.Close()
			}()
		}
	}()
	result := b.bob("build", "--progress=plain", "--ssh", "default="+socket, "--ssh", "own=key", "-f", "ssh/Dockerfile", "ssh")
	if result.Code != 0 {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
	if keys, err := keyring.List(); err != nil || len(keys) != 1 {
		t.Errorf("the agent has %d keys left, error %v", len(keys), err)
	}
	if n := strings.Count(result.Stdout+result.Stderr, "Good \"file\" signature"); n != 2 {
		t.Errorf("%d signatures were verified, want 2\n%s", n, result.Stderr)
	}
}
