// Package private makes networks of their own for commands, whose packets a program
// carries, as connections of the user who runs bob.
//
// The program is pasta or else slirp4netns, a child of bob that ends with the run. From
// there nothing reaches the loopback addresses of
// the host, nor abstract sockets; nor the addresses that the host's interfaces have
// when the run begins, nor those of the clouds' metadata services: rules of the
// namespace forbid them, which an Insecure process could remove. Names are resolved
// by the program, which asks the host's resolver.
package private

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/registry/nearby"
)

// tunDevice is what packets of a private network come out of.
const tunDevice = "/dev/net/tun"

// A carrier is a program that connects a network namespace with this one.
type carrier struct {
	program  string
	resolver string // the address at which it answers for the host's resolver
	// args are its arguments for the namespace mounted at the path. When it is
	// ready it writes to the named pipe, which is its descriptor 3, too.
	args func(namespace, pipe string) []string
}

// carriers returns the carriers that bob can use, the best first. Either refuses
// the host's loopback addresses.
func carriers() []carrier {
	return []carrier{
		// It has IPv6, and gives the namespace the host's own address.
		{"pasta", "169.254.1.53", func(namespace, pipe string) []string {
			return []string{
				"--foreground", "--stderr", "--quiet", "--config-net", "--ns-ifname", "eth0",
				"--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none",
				"--dns-forward", "169.254.1.53", "--runas", "0:0", "--pid", pipe, "--netns-only", "--netns", namespace,
			}
		}},
		{"slirp4netns", "10.0.2.3", func(namespace, _ string) []string {
			return []string{
				"--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp",
				"--ready-fd=3", "--netns-type=path", namespace, "eth0",
			}
		}},
	}
}

// A Network is the network namespace of one run, and the program that
// carries its packets.
type Network struct {
	Path     string // where the namespace is mounted
	Resolver string // the address of what the container asks about names
	Program  string // that carries the packets

	cmd   *exec.Cmd
	log   string        // the file with what the program says
	ended chan struct{} // closed when the program has ended
}

// Open makes the network in dir, an empty directory. The caller closes it.
func Open(ctx context.Context, dir string) (*Network, error) {
	if err := checkTun(); err != nil {
		return nil, err
	}
	n := &Network{Path: filepath.Join(dir, "net"), log: filepath.Join(dir, "net.log")}
	if err := makeNetwork(n.Path); err != nil {
		return nil, fmt.Errorf("private network: %w", err)
	}
	err := n.connect(ctx, filepath.Join(dir, "net.ready"))
	if err == nil {
		err = n.forbid()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("private network: %w", err), n.Close())
	}
	return n, nil
}

// checkTun returns the obstacle if the device of private networks can't be used.
func checkTun() error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return obstacle.New(tunDevice+", which a private network takes, can't be opened by this user", "as root, run\n  chmod 666 "+tunDevice+"\nor build with --network=host or none")
	case err != nil:
		return obstacle.New(tunDevice+", which a private network takes, is missing: "+err.Error(), "as root of the machine, run\n  modprobe tun\nin a container, start it with --device "+tunDevice+"; or build with --network=host or none")
	}
	return f.Close()
}

// makeNetwork makes a network namespace with its loopback interface up, and mounts
// it at path.
func makeNetwork(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		loopback, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(loopback)
		}
		if err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		return os.NewSyscallError("mount", unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
	})
}

// onThread calls f on a thread that ends afterwards, since it can't leave the
// network namespace that f enters: bob's own belongs to another user namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// connect starts the first carrier that is there and works. pipe is a path for it.
func (n *Network) connect(ctx context.Context, pipe string) error {
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: pipe, Err: err}
	}
	var errs []error
	for _, c := range carriers() {
		program, err := exec.LookPath(c.program)
		if err != nil {
			continue
		}
		if err = n.start(ctx, program, c.args(n.Path, pipe), pipe); err == nil {
			n.Program, n.Resolver = c.program, c.resolver
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", c.program, err))
	}
	if len(errs) == 0 {
		return noCarrier()
	}
	return errors.Join(errs...)
}

func noCarrier() *obstacle.Obstacle {
	return obstacle.New(
		"neither pasta nor slirp4netns, of which a private network takes one, is on PATH",
		"install one with `apt-get install passt` or `apt-get install slirp4netns` (Debian, Ubuntu), `dnf install passt` (Fedora, RHEL) or `apk add passt` (Alpine)",
	)
}

// start starts the program and waits until it says through the pipe that it is
// ready. The kernel kills it when bob dies.
func (n *Network) start(ctx context.Context, program string, args []string, pipe string) (err error) {
	// Open for writing as well, it has no end.
	ready, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = ready.Close() }()
	// A file that a child inherits has no deadlines any more.
	inherited, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = inherited.Close() }()
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	n.cmd = exec.Command(program, args...) //nolint:gosec,noctx // pasta or slirp4netns; it ends after the container
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.ExtraFiles = log, log, []*os.File{inherited}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	n.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The parent death signal is about the thread that forks.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.cmd.Start()
		started <- err
		if err == nil {
			_ = n.cmd.Wait() // says what the log doesn't
		}
		close(n.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	interrupt := func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) }
	defer context.AfterFunc(ctx, interrupt)()
	go func() {
		<-n.ended
		interrupt()
	}()
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		n.kill()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n.failure()
		}
		return err
	}
	return nil
}

// failure says why the program ended.
func (n *Network) failure() error {
	said, _ := os.ReadFile(n.log)
	var lines []string
	for line := range strings.Lines(string(said)) {
		// Where there is no system log, pasta says so for each message.
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "to syslog") {
			lines = append(lines, line)
		}
	}
	const most = 5
	return fmt.Errorf("%v: %s", n.cmd.ProcessState, strings.Join(lines[max(0, len(lines)-most):], "; "))
}

// forbid has the namespace reach neither metadata services nor an address of the
// host; those that the namespace has itself mean itself.
func (n *Network) forbid() error {
	prefixes, err := nearby.Prefixes()
	if err != nil {
		return err
	}
	forbidden := make([]*net.IPNet, len(prefixes))
	for i, p := range prefixes {
		forbidden[i] = &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
	}
	resolver, err := netlink.ParseIPNet(n.Resolver + "/32")
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(n.Path)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return addRules(resolver, forbidden)
	})
}

// addRules lets packets to one address through and none to the forbidden networks.
// The rules are in the order of their priority; before them is the one about the
// namespace's own addresses.
func addRules(through *net.IPNet, forbidden []*net.IPNet) error {
	r := netlink.NewRule()
	r.Dst, r.Table, r.Priority = through, unix.RT_TABLE_MAIN, 1
	if err := netlink.RuleAdd(r); err != nil {
		return fmt.Errorf("allow %s: %w", through, err)
	}
	for _, dst := range forbidden {
		r := netlink.NewRule()
		r.Dst, r.Type, r.Priority = dst, nl.FR_ACT_PROHIBIT, 2
		err := netlink.RuleAdd(r)
		without6 := dst.IP.To4() == nil && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP))
		if err != nil && !errors.Is(err, unix.EEXIST) && !without6 {
			return fmt.Errorf("forbid %s: %w", dst, err)
		}
	}
	return nil
}

// Watch returns a context that ends, with a cause that says so, when the program
// ends before stop is called.
func (n *Network) Watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	go func() {
		select {
		case <-n.ended:
			cancel(fmt.Errorf("the private network broke: %s ended: %w", n.Program, n.failure()))
		case <-stopped:
			cancel(nil)
		}
	}()
	return watched, func() { close(stopped) }
}

// kill ends the program and waits for its end.
func (n *Network) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.ended
}

// Close ends the network. No process of the container is left.
func (n *Network) Close() error {
	if n.cmd != nil && n.cmd.Process != nil {
		n.kill()
	}
	if err := unix.Unmount(n.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: n.Path, Err: err}
	}
	return nil
}
