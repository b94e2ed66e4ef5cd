package sandbox_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

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
	talk(t, word)
	type attack struct{ name, argument string }
	attacks := []attack{{"read packets", word}, {"read datagrams", word}, {"interface down", ""}}
	if start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(start)) != "0" {
		attacks = append(attacks, attack{"low port", ""})
	}
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

// talk sends the word on the loopback interface until the end of the test.
func talk(t *testing.T, word string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, len(word))
		for ctx.Err() == nil {
			if _, err := l.WriteTo([]byte(word), l.LocalAddr()); err != nil {
				return
			}
			if _, _, err := l.ReadFrom(b); err != nil {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		<-done
	})
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
