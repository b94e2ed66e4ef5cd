package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A proxyRun is a bob proxy at work, as another user than who builds.
type proxyRun struct {
	t       testing.TB
	user    *harness.User
	cmd     *exec.Cmd
	address string       // what it says that it listens on, without scheme
	log     bytes.Buffer // to be read once it has ended
	exited  chan struct{}
}

// startProxy starts a proxy; it has ended when the test does.
func startProxy(t testing.TB, env []string, args ...string) *proxyRun {
	t.Helper()
	bob, err := lab.Bob()
	check(t, err)
	user, err := harness.Unprivileged(t.Context(), "bobtest-proxy")
	check(t, err)
	p := &proxyRun{t: t, user: user, exited: make(chan struct{})}
	seen := watchOut()
	p.cmd = user.Command(context.WithoutCancel(t.Context()), "/", env, bob, append([]string{"proxy", "--log-format=json"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = seen, &p.log
	check(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // ProcessState tells
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // unless it has ended
		<-p.exited
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	select {
	case line := <-seen.line:
		_, p.address, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "listening on ")), "://")
	case <-p.exited:
		t.Fatalf("bob proxy ended: %s", p.log.String())
	}
	return p
}

// end waits for the end and returns the exit code.
func (p *proxyRun) end() int {
	<-p.exited
	return p.cmd.ProcessState.ExitCode()
}

func (p *proxyRun) signal(sig syscall.Signal) {
	p.t.Helper()
	check(p.t, p.cmd.Process.Signal(sig))
}

// ask makes a request of the proxy and returns status and Location.
func (p *proxyRun) ask(method, path string, body io.Reader) (status int, location string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.address+path, body)
	check(p.t, err)
	req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	check(p.t, err)
	check(p.t, resp.Body.Close())
	return resp.StatusCode, resp.Header.Get("Location")
}

// TestProxy builds without credentials, FROM a private base into a private
// repository, by way of a proxy that another user runs.
func TestProxy(t *testing.T) {
	t.Parallel()
	password := base64.StdEncoding.EncodeToString([]byte(harness.GuardedUser + ":" + harness.GuardedPassword))
	for kind, tt := range map[string]struct {
		registry func() (*harness.Registry, error)
		login    string
	}{
		"basic":    {lab.Guarded, `{"auth":"` + password + `"}`},
		"tokens":   {lab.Tokens, `{"username":"` + harness.GuardedUser + `","password":"` + harness.GuardedPassword + `"}`},
		"identity": {lab.Tokens, `{"auth":"` + base64.StdEncoding.EncodeToString([]byte("x:")) + `","identitytoken":"` + harness.IdentityToken + `"}`},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			r, err := tt.registry()
			check(t, err)
			base, err := harness.Layers(t.Context())
			check(t, err)
			baseRef, targetRef := r.Prefix+"/"+kind+"/base:real", r.Prefix+"/"+kind+"/app:v1"
			check(t, r.Push(t.Context(), baseRef, base))
			p := startProxy(t, []string{
				"WORKSPACEKIT_BOBPROXY_BASEREF=" + baseRef, "WORKSPACEKIT_BOBPROXY_TARGETREF=" + targetRef,
				`WORKSPACEKIT_BOBPROXY_AUTH={"auths":{"` + r.Host + `":` + tt.login + `}}`,
			}, "--listen=127.0.0.1:0")

			b.write(map[string]string{"context/Dockerfile": "FROM " + p.address + "/base\nRUN echo hi > /hi\n"})
			b.ref = p.address + "/target:latest"
			digest := b.build()
			if got := remoteDigest(t, targetRef); got != digest {
				t.Errorf("%s is %s, want %s", targetRef, got, digest)
			}
			b.write(map[string]string{"context/Dockerfile": "FROM " + p.address + "/target@" + digest + "\nRUN test -e /hi && rm /hi\n"})
			again := b.build("--no-cache")
			if got := remoteDigest(t, targetRef); got != again || again == digest {
				t.Errorf("%s is %s, want %s", targetRef, got, again)
			}
			// The same user can't read what the proxy knows.
			read := p.user.Command(t.Context(), "/", nil, "cat", fmt.Sprintf("/proc/%d/environ", p.cmd.Process.Pid))
			if out, err := read.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Permission denied")) {
				t.Errorf("the proxy's environment can be read: %v %s", err, out)
			}
			refused := b.bob("build", "-t", p.address+"/other:1", "context")
			if refused.Code != 1 || !matches("404|no such repository", refused.Stderr) {
				t.Errorf("a push to another repository: exit code %d\n%s", refused.Code, refused.Stderr)
			}

			p.signal(syscall.SIGTERM)
			if code := p.end(); code != 143 {
				t.Errorf("bob proxy ended with %d after SIGTERM", code)
			}
			log := p.log.String()
			if strings.Contains(log, harness.GuardedPassword) || strings.Contains(log, password) || strings.Contains(log, "eyJ") {
				t.Error("the log holds credentials")
			}
			if !regexp.MustCompile(`"status":201,[^\n]*"upload start"`).MatchString(log) {
				t.Error("no layer of base was mounted")
			}
		})
	}
}

// remoteDigest asks the real registry, with credentials.
func remoteDigest(t *testing.T, ref string) string {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	check(t, err)
	found, err := remote.Head(parsed, remote.WithContext(t.Context()), remote.WithAuth(&authn.Basic{Username: harness.GuardedUser, Password: harness.GuardedPassword}))
	check(t, err)
	return found.Digest.String()
}

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// TestProxyEnds ends a proxy in the middle of a push: by one signal the push comes
// to its manifest, by two it doesn't.
func TestProxyEnds(t *testing.T) {
	t.Parallel()
	r, err := lab.Registry()
	check(t, err)
	start := func() *proxyRun {
		p := startProxy(t, nil, "--listen=127.0.0.1:0", "--grace=24h", "--base-ref="+r.Prefix+"/ends/base", "--target-ref="+r.Prefix+"/ends/app:1")
		if status, _ := p.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil); status != http.StatusAccepted {
			t.Fatalf("an upload begins with status %d", status)
		}
		p.signal(syscall.SIGTERM)
		for {
			status, _ := p.ask(http.MethodPost, "/v2/base/blobs/uploads/", nil)
			if status == http.StatusServiceUnavailable {
				return p
			}
			// The signal isn't there yet, and this is a push too.
			if status, _ = p.ask(http.MethodPut, "/v2/base/manifests/1", strings.NewReader(emptyIndex)); status != http.StatusCreated {
				t.Fatalf("a manifest: status %d", status)
			}
		}
	}
	p := start()
	if status, _ := p.ask(http.MethodPut, "/v2/target/manifests/x", strings.NewReader(emptyIndex)); status != http.StatusCreated {
		t.Errorf("the manifest: status %d", status)
	}
	if code := p.end(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
	if !has(t, r, r.Prefix+"/ends/app:1") {
		t.Error("the push wasn't finished")
	}
	p = start()
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

// TestProxySocket listens on a socket that only its user may use.
func TestProxySocket(t *testing.T) {
	t.Parallel()
	user, err := harness.Unprivileged(t.Context(), "bobtest-proxy")
	check(t, err)
	dir, err := lab.TempDir("socket")
	check(t, err)
	check(t, user.Own(dir))
	socket := filepath.Join(dir, "s")
	args := []string{"--listen=unix://" + socket, "--target-ref=registry.invalid/app"}
	p := startProxy(t, nil, args...)
	if p.address != socket {
		t.Errorf("it listens on %s", p.address)
	}
	info, err := os.Stat(socket)
	check(t, err)
	if info.Mode().Type() != os.ModeSocket || info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %s", socket, info.Mode())
	}
	wantAPI := func() {
		t.Helper()
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
		check(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		check(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		check(t, err)
		if check(t, resp.Body.Close()); resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	wantAPI()
	refuse := func(code int, want string) {
		t.Helper()
		bob, err := lab.Bob()
		check(t, err)
		out, err := user.Command(t.Context(), "/", nil, bob, append([]string{"proxy"}, args...)...).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != code || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%v, %s; want exit code %d, %s", err, out, code, want)
		}
	}
	refuse(1, "another process listens there")
	wantAPI()

	p.signal(syscall.SIGKILL)
	p.end()
	if _, err := os.Stat(socket); err != nil {
		t.Fatal("SIGKILL leaves no socket to be replaced: ", err)
	}
	p = startProxy(t, nil, args...)
	wantAPI()
	p.signal(syscall.SIGTERM)
	if code := p.end(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	check(t, os.WriteFile(socket, nil, 0o644))
	refuse(2, "no socket")
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// BenchmarkProxy passes a layer of 5 GB through the built binary, in each direction,
// and reports the proxy's highest resident memory. What is behind it keeps nothing.
func BenchmarkProxy(b *testing.B) {
	const size = 5 << 30
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	check(b, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodPost:
			w.Header().Set("Location", "/v2/app/blobs/uploads/u")
			w.WriteHeader(http.StatusAccepted)
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = io.CopyN(w, zeros{}, size)
		default:
			if n, err := io.Copy(io.Discard, r.Body); err != nil || n != size {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}
	})}
	go func() { _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close() })
	digest := "sha256:" + strings.Repeat("0", 64)
	for direction, pass := range map[string]func(p *proxyRun) error{
		"push": func(p *proxyRun) error {
			_, location := p.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil)
			if status, _ := p.ask(http.MethodPut, location+"?digest="+digest, io.LimitReader(zeros{}, size)); status != http.StatusCreated {
				return fmt.Errorf("status %d", status)
			}
			return nil
		},
		"pull": func(p *proxyRun) error {
			resp, err := http.Get("http://" + p.address + "/v2/target/blobs/" + digest)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
				return fmt.Errorf("%d bytes: %w", n, err)
			}
			return nil
		},
	} {
		b.Run(direction, func(b *testing.B) {
			p := startProxy(b, nil, "--listen=127.0.0.1:0", "--target-ref="+l.Addr().String()+"/app:1")
			b.SetBytes(size)
			for b.Loop() {
				check(b, pass(p))
			}
			peak := highWater(b, p.cmd.Process.Pid)
			b.ReportMetric(float64(peak)/(1<<20), "MiB-resident")
			if peak > 64<<20 {
				b.Errorf("%d bytes resident", peak)
			}
		})
	}
}

var vmHWM = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// highWater returns the most memory that a process has had resident, bytes.
func highWater(t testing.TB, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	match := vmHWM.FindSubmatch(status)
	if match == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	peak, err := strconv.ParseInt(string(match[1]), 10, 64)
	check(t, err)
	return peak << 10
}
