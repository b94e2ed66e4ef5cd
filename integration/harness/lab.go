package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// buildTags are the build tags of the Makefile.
const buildTags = "seccomp osusergo netgo static_build exclude_graphdriver_btrfs exclude_graphdriver_zfs exclude_disk_quota"

// labPrefix begins the names of laboratories in the temporary directory.
const labPrefix = "bob-lab-"

// A Lab holds what a run of tests or benchmarks shares. Its methods may be
// called by several goroutines; each thing is made once, when first asked for.
type Lab struct {
	Dir  string // everything lies below; readable by User
	User *User

	bob      func() (string, error)
	registry func() (*Registry, error)
	guarded  func() (*Registry, error)
	tokens   func() (*Registry, error)

	mu     sync.Mutex
	images map[string]func() (string, error)
	stops  []func() error

	dirs   atomic.Int64
	cancel context.CancelFunc
	unlock func() // while it is locked, no other process sweeps Dir away
}

// Open makes a laboratory below a fresh temporary directory. The caller closes it.
func Open(ctx context.Context, userName string) (*Lab, error) {
	u, err := Unprivileged(ctx, userName)
	if err != nil {
		return nil, err
	}
	if err := sweep(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", labPrefix)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "no-auth.json"), []byte("{}"), 0o644); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Lab{Dir: dir, User: u, images: map[string]func() (string, error){}, cancel: cancel, unlock: unlock}
	l.bob = sync.OnceValues(func() (string, error) { return l.build(ctx) })
	registries := &starter{user: u, tempDir: l.TempDir, onClose: l.onClose}
	l.registry = sync.OnceValues(func() (*Registry, error) { return registries.start(ctx, nothing) })
	l.guarded = sync.OnceValues(func() (*Registry, error) { return registries.start(ctx, byPassword) })
	l.tokens = sync.OnceValues(func() (*Registry, error) { return registries.start(ctx, byTokens) })
	return l, nil
}

// Close stops the registries and removes the laboratory's directory.
func (l *Lab) Close(ctx context.Context) error {
	l.mu.Lock()
	stops := l.stops
	l.stops = nil
	l.mu.Unlock()
	var errs []error
	for _, stop := range stops {
		errs = append(errs, stop())
	}
	l.cancel()
	defer l.unlock()
	return errors.Join(append(errs, RemoveAll(ctx, l.Dir))...)
}

// sweep removes the laboratories of processes that were killed: those whose
// lock is there and free.
func sweep(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), labPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
		if err != nil {
			continue // somebody else's, or about to be locked
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			err = RemoveAll(ctx, dir)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
	}
	return nil
}

// RemoveAll removes a tree that may hold files of subordinate IDs, which only
// root of the owner's user namespace may remove.
func RemoveAll(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err == nil {
		return nil
	}
	return sh(ctx, "unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--", dir)
}

// Bob returns the path of the static binary, built once from this checkout.
func (l *Lab) Bob() (string, error) { return l.bob() }

// Registry returns the registry without authentication.
func (l *Lab) Registry() (*Registry, error) { return l.registry() }

// Guarded returns a registry that wants GuardedUser and GuardedPassword.
func (l *Lab) Guarded() (*Registry, error) { return l.guarded() }

// Tokens returns a registry that wants tokens of a token server, which wants
// GuardedUser and GuardedPassword, or IdentityToken.
func (l *Lab) Tokens() (*Registry, error) { return l.tokens() }

// NoAuth is the variable that makes skopeo and buildah ask an empty file for
// credentials, and not one in /run that may belong to somebody else.
func (l *Lab) NoAuth() string { return "REGISTRY_AUTH_FILE=" + l.Dir + "/no-auth.json" }

// TempDir returns a fresh directory that User owns.
func (l *Lab) TempDir(name string) (string, error) {
	clean := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' || r == '#' {
			return '-'
		}
		return r
	}, name)
	dir := filepath.Join(l.Dir, fmt.Sprintf("%03d-%s", l.dirs.Add(1), clean))
	return dir, l.User.Mkdir(dir)
}

func (l *Lab) build(ctx context.Context) (string, error) {
	if err := Need("go", "gcc", "pkg-config"); err != nil {
		return "", err
	}
	if err := exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run(); err != nil {
		return "", &MissingError{What: "libseccomp-dev (make test installs it when it may)"}
	}
	root, err := Module(ctx)
	if err != nil {
		return "", err
	}
	build := func(bin, tags, pkg string, args ...string) error {
		cmd := exec.CommandContext(ctx, "go", append(append([]string{
			"build", "-trimpath", "-tags", tags,
			"-ldflags", "-s -w -linkmode external -extldflags -static -X main.version=v0.0.0-test", "-o", bin,
		}, args...), pkg)...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
		return nil
	}
	// As in the Makefile, the program that starts containers is embedded.
	const entry = "executor/sandbox/internal/entry"
	// A directory of its own, in which nobody mounts anything: libcontainer then needs not
	// copy bob for each container.
	dir := filepath.Join(l.Dir, "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	first, overlay, bin := filepath.Join(dir, "init"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "bob")
	if err := build(first, buildTags, "./"+entry+"/initprogram"); err != nil {
		return "", err
	}
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, entry, "program"): first}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replaced, 0o600); err != nil {
		return "", err
	}
	return bin, build(bin, buildTags+" smallinit", "./cmd/bob", "-overlay", overlay)
}

// Module returns the directory of this module.
func Module(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("run go env: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

func (l *Lab) onClose(stop func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stops = append(l.stops, stop)
}
