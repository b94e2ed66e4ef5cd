// Package listen opens the addresses that bob's own servers listen on. They are for this
// machine, unless the user wants otherwise.
package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
)

// Limits say which addresses are allowed.
type Limits struct {
	// Unix allows unix:///path, a socket that only this user may use.
	Unix bool
	// Anywhere allows addresses that other machines reach.
	Anywhere bool
	// Why ends the error about an address that only Anywhere would allow.
	Why string
}

// On listens on the address, host:port or unix:///path. Closing the listener removes
// its socket. An error in the address is a [cli.UsageError] about --listen.
func On(ctx context.Context, address string, limits Limits) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok && limits.Unix {
		return listenUnix(ctx, path)
	}
	if !limits.Anywhere {
		if err := checkLoopback(address, limits.Why); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", address)
}

// Address returns the address that clients use.
func Address(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return "unix://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// checkLoopback refuses addresses that other machines can reach, and says why.
func checkLoopback(addr, why string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return cli.Errorf("--listen %s: %v", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return cli.Errorf("--listen %s: not a loopback address; %s", addr, why)
	}
	return nil
}

// listenUnix listens on a socket that only this user may use. A socket on which
// nobody listens any more is replaced. Closing the listener removes the socket.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, cli.Errorf("--listen unix://%s: want an absolute path, unix:///path", path)
	}
	// Of two that start at the same time, one sees the other's socket.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on unix://%s: %w", path, err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	old := syscall.Umask(0o177)
	l, err := lc.Listen(ctx, "unix", path)
	syscall.Umask(old)
	return l, err
}

// removeStale removes the socket at path unless somebody listens on it.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return cli.Errorf("--listen unix://%s: there is a file that is no socket; remove it or choose another path", path)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("listen on unix://%s: another process listens there", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on unix://%s: is somebody there? %w", path, err)
	}
	return os.Remove(path)
}
