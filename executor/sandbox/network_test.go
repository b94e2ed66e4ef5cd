package sandbox_test

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

// TestNetworkOfHost has a command that shares the machine's network do to it, and to what
// is reached through it, what no other user may.
func TestNetworkOfHost(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	root := newRoot(t)
	installEscaper(t, root)
	word := "bob-test-" + unique()
	stream, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "@"+word)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	datagrams, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", "@"+word+"-d")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = datagrams.Close() }()
	type attack struct{ name, argument string }
	var attacks []attack
	if landlockHere() >= 6 {
		attacks = append(attacks, attack{"abstract socket", word}, attack{"abstract datagram", word + "-d"})
	}
	for _, a := range attacks {
		var out bytes.Buffer
		p := &sandbox.Process{Root: root, Args: []string{"escape", a.name, a.argument}, Env: []string{"PATH=/bin"}, Stdout: &out, Stderr: &out}
		if err := r.Run(t.Context(), p); err != nil || !strings.HasPrefix(out.String(), "refused") {
			t.Errorf("%s: %v, %s", a.name, err, &out)
		}
	}
}

// TestAbstractSockets has commands use abstract sockets among themselves, which nothing
// forbids, and an insecure one those of the machine.
func TestAbstractSockets(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	installEscaper(t, root)
	name := "bob-test-" + unique()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, test := range []struct {
		name     string
		args     []string
		insecure bool
	}{
		{"within a run", []string{"sh", "-c", "escape 'serve abstract socket' own & escape 'wait for abstract socket' own"}, false},
		{"insecure", []string{"escape", "abstract socket", name}, true},
	} {
		var out bytes.Buffer
		p := &sandbox.Process{Root: root, Args: test.args, Env: []string{"PATH=/bin"}, Insecure: test.insecure, Stdout: &out, Stderr: &out}
		if err := newRunner(t).Run(t.Context(), p); err != nil || !strings.Contains(out.String(), "ESCAPED") {
			t.Errorf("%s: %v, %s", test.name, err, &out)
		}
	}
}
