package harness

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A Registry is a place to pull from and push to, by plain HTTP.
type Registry struct {
	Host   string // host:port
	Prefix string // host:port/path below which all repositories of this run lie
	guard  guard
}

// A guard says what a registry wants of its clients.
type guard int

const (
	nothing    guard = iota
	byPassword       // GuardedUser and GuardedPassword
	byTokens         // those of a token server, which wants the same or IdentityToken
)

// A starter starts registries, each in a directory of its own that belongs to user.
type starter struct {
	user    *User
	tempDir func(name string) (string, error)
	onClose func(stop func() error)
}

// start starts Debian's docker-registry (distribution 2.8) on a free
// port of loopback, or adopts the one named in BOB_TEST_REGISTRY.
func (s *starter) start(ctx context.Context, guard guard) (*Registry, error) {
	path := "it-" + strings.ToLower(rand.Text()[:8])
	if host := os.Getenv("BOB_TEST_REGISTRY"); host != "" && guard == nothing {
		return &Registry{Host: host, Prefix: host + "/" + path}, nil
	}
	if err := Need("docker-registry"); err != nil {
		return nil, err
	}
	var err error
	for range 5 { // another process may take the port between its choice and its use
		var r *Registry
		if r, err = s.try(ctx, guard); err == nil {
			r.Prefix = r.Host + "/" + path
			return r, nil
		}
	}
	return nil, err
}

func (s *starter) try(ctx context.Context, guard guard) (*Registry, error) {
	dir, err := s.tempDir("registry")
	if err != nil {
		return nil, err
	}
	r := &Registry{Host: freeAddress(ctx), guard: guard}
	config := "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n" +
		"storage: {delete: {enabled: true}, filesystem: {rootdirectory: " + dir + "/data, maxthreads: 100}}\n" +
		"http: {addr: '" + r.Host + "', secret: s}\n"
	switch guard {
	case nothing:
	case byPassword:
		hash := GuardedUser + ":" + guardedHash + "\n"
		if err := os.WriteFile(filepath.Join(dir, "htpasswd"), []byte(hash), 0o644); err != nil {
			return nil, err
		}
		config += "auth: {htpasswd: {realm: test, path: " + dir + "/htpasswd}}\n"
	case byTokens:
		tokens, err := startTokens(ctx)
		if err != nil {
			return nil, err
		}
		s.onClose(tokens.server.Close)
		certificate := filepath.Join(dir, "tokens.pem")
		if err := os.WriteFile(certificate, tokens.pem(), 0o644); err != nil {
			return nil, err
		}
		config += tokens.config(certificate)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	if err := s.user.Own(dir); err != nil {
		return nil, err
	}
	cmd := s.user.Command(ctx, dir, nil, "docker-registry", "serve", filepath.Join(dir, "config.yml"))
	cmd.Stdout, cmd.Stderr = log, log
	done, err := startAttached(cmd)
	if err != nil {
		return nil, err
	}
	if err := r.wait(ctx, done); err != nil {
		text, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("start docker-registry: %w\n%s", err, text)
	}
	s.onClose(func() error {
		err := cmd.Process.Kill()
		if _, killed := errors.AsType[*exec.ExitError](<-done); !killed {
			err = errors.Join(err, errors.New("docker-registry ended by itself"))
		}
		return errors.Join(err, log.Close())
	})
	return r, nil
}

// startAttached starts cmd so that the kernel kills it when this process dies.
// The signal is tied to the thread that forked, hence the locked goroutine.
func startAttached(cmd *exec.Cmd) (done <-chan error, err error) {
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
			close(ended)
		}
	}()
	return ended, <-started
}

func freeAddress(ctx context.Context) string {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:5000"
	}
	defer listener.Close()
	return listener.Addr().String()
}

func (r *Registry) wait(ctx context.Context, done <-chan error) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		status, err := r.status(ctx, http.MethodGet, "")
		if err == nil && (status == http.StatusOK || status == http.StatusUnauthorized) {
			return nil
		}
		select {
		case err := <-done:
			return fmt.Errorf("it ended: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("no answer for 20 s")
}

func (r *Registry) status(ctx context.Context, method, path string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+r.Host+"/v2/"+path, nil)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, "+
		"application/vnd.docker.distribution.manifest.v2+json")
	if r.guard == byPassword {
		request.SetBasicAuth(GuardedUser, GuardedPassword)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// Has says whether ref, a name with a tag below Host, is in the registry.
func (r *Registry) Has(ctx context.Context, ref string) (bool, error) {
	path, ok := strings.CutPrefix(ref, r.Host+"/")
	cut := strings.LastIndexByte(path, ':')
	if !ok || cut < 0 {
		return false, fmt.Errorf("look up %s: not a tag of %s", ref, r.Host)
	}
	status, err := r.status(ctx, http.MethodHead, path[:cut]+"/manifests/"+path[cut+1:])
	if err != nil {
		return false, err
	}
	if status != http.StatusOK && status != http.StatusNotFound {
		return false, fmt.Errorf("look up %s: status %d", ref, status)
	}
	return status == http.StatusOK, nil
}

// DockerConfig returns a docker config.json with the guarded registry's credentials.
func (r *Registry) DockerConfig() string {
	auth := base64.StdEncoding.EncodeToString([]byte(GuardedUser + ":" + GuardedPassword))
	return `{"auths":{"` + r.Host + `":{"auth":"` + auth + `"}}}`
}
