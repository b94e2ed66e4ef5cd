package integration_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/integration/harness"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// A smallWorld is a machine of its own for network tests: a network namespace with
// a host, which has servers on its addresses, and one beyond it.
type smallWorld struct {
	port int // of the servers, all of which say the address that they are at
}

// The addresses of a smallWorld.
const (
	hostLoopback = "127.0.0.1"
	hostAddress  = "203.0.113.2"
	hostOther    = "198.51.100.9" // on another interface
	metadata     = "169.254.169.254"
	outside      = "203.0.113.5"
	outsideName  = "outside.test"
	stubResolver = "127.0.0.53" // systemd-resolved's
)

// inSmallWorld runs f on a thread that is in a smallWorld, where what f starts runs
// too. It skips the test where none can be made.
func inSmallWorld(t *testing.T, f func(w *smallWorld)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make a network to test in")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip(err)
	}
	failed := make(chan error, 1)
	go func() {
		defer close(failed) // however f ends the test
		runtime.LockOSThread()
		w := &smallWorld{}
		if err := w.make(t); err != nil {
			failed <- err
			return
		}
		f(w)
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

func (w *smallWorld) make(t *testing.T) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := w.makeFiles(t.TempDir()); err != nil {
		return err
	}
	beyond, err := netns.New()
	if err != nil {
		return err
	}
	if err := w.servers(t, hostLoopback); err != nil { // where nobody looks, for the port
		return err
	}
	host, err := netns.New()
	if err != nil {
		return err
	}
	if err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "wire"}, PeerName: "wire", PeerNamespace: netlink.NsFd(beyond),
	}); err != nil {
		return err
	}
	if err := netns.Set(beyond); err != nil {
		return err
	}
	if err := addresses("wire", outside+"/24", metadata+"/32"); err != nil {
		return err
	}
	if err := w.servers(t, outside, metadata); err != nil {
		return err
	}
	if err := netns.Set(host); err != nil {
		return err
	}
	if err := addresses("lo", hostOther+"/32"); err != nil {
		return err
	}
	if err := addresses("wire", hostAddress+"/24"); err != nil {
		return err
	}
	link, err := netlink.LinkByName("wire")
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(outside)}); err != nil {
		return err
	}
	if err := w.servers(t, hostLoopback, hostAddress, hostOther); err != nil {
		return err
	}
	return resolve(t)
}

// makeFiles has every user open the tun device, and the resolver's configuration
// name the stub, in this thread's mount namespace.
func (*smallWorld) makeFiles(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	tun := filepath.Join(dir, "tun")
	if err := unix.Mknod(tun, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 200))); err != nil {
		return err
	}
	if err := os.Chmod(tun, 0o666); err != nil {
		return err
	}
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+stubResolver+"\noptions timeout:5\nsearch test\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount(tun, "/dev/net/tun", "", unix.MS_BIND, "")
}

func addresses(name string, all ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range all {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return nil
}

// servers starts a web server at each address, all at the same port.
func (w *smallWorld) servers(t *testing.T, at ...string) error {
	for _, addr := range at {
		if addr == hostLoopback {
			if err := addresses("lo"); err != nil {
				return err
			}
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", addr, w.port))
		if err != nil {
			return err
		}
		if address, ok := l.Addr().(*net.TCPAddr); ok {
			w.port = address.Port
		}
		srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "this is "+addr+"\n")
		})}
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(func() { _ = srv.Close() })
	}
	return nil
}

// resolve answers at the stub resolver's address that every name is outside's.
func resolve(t *testing.T) error {
	c, err := net.ListenPacket("udp4", stubResolver+":53")
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(outside).To4())},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return nil
}

// withPrograms returns a PATH on which only these of the programs that carry
// packets are.
func (b *workbench) withPrograms(names ...string) string {
	b.t.Helper()
	dir := b.dir + "/bin-" + strings.Join(names, "-")
	check(b.t, os.MkdirAll(dir, 0o755))
	for _, name := range append([]string{"newuidmap", "newgidmap"}, names...) {
		path, err := exec.LookPath(name)
		if err != nil {
			b.t.Skip(err)
		}
		check(b.t, os.Symlink(path, dir+"/"+name))
	}
	return "PATH=" + dir
}

// writeReaching makes a build whose RUN fetches from every address, and writes what
// came of it to /result.
func (w *smallWorld) writeReaching(b *workbench) {
	b.t.Helper()
	script := ""
	for _, at := range []string{hostLoopback, hostAddress, hostOther, metadata, outside, outsideName, "10.0.2.2"} {
		script += fmt.Sprintf("echo %[1]s: $(busybox timeout 5 bash -c 'exec 3<>/dev/tcp/%[1]s/%[2]d && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && busybox tail -n 1 <&3' 2>&1 || echo refused) >> /result\n", at, w.port)
	}
	script += "busybox cat /etc/resolv.conf > /resolv\n"
	b.write(map[string]string{
		"context/root/reach": script,
		"context/Dockerfile": "FROM scratch\nCOPY root /\nENV PATH=/bin\nRUN [\"bash\", \"/reach\"]\n",
	})
	// The static busybox can't resolve names without the libraries of the machine.
	for _, program := range []string{"busybox", "bash"} {
		path, err := exec.LookPath(program)
		if err != nil {
			b.t.Skip(err)
		}
		check(b.t, copyFile(path, b.dir+"/context/root/bin/"+program))
		libraries, _ := exec.CommandContext(b.t.Context(), "ldd", path).Output() // an error for a static one
		for field := range strings.FieldsSeq(string(libraries)) {
			if strings.HasPrefix(field, "/") {
				check(b.t, copyFile(field, b.dir+"/context/root"+field))
			}
		}
	}
}

func copyFile(from, to string) error {
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, body, 0o755)
}

// TestPrivateNetwork reaches for a server on every kind of address: a private
// network leads out, and never to the host's own or to a metadata service's.
func TestPrivateNetwork(t *testing.T) {
	t.Parallel()
	inSmallWorld(t, func(w *smallWorld) {
		b := newWorkbench(t)
		w.writeReaching(b)
		bob, err := lab.Bob()
		check(t, err)
		build := func(name string, root bool, path string, flags ...string) string {
			t.Helper()
			args := append([]string{"build", "--progress=plain", "--no-cache", "-o", "out-" + name}, append(flags, "context")...)
			if !root {
				if result := b.run(harness.Invocation{Env: []string{path}, Args: args}); result.Code != 0 {
					t.Fatalf("%s: exit code %d\n%s", name, result.Code, result.Stderr)
				}
			} else {
				cmd := exec.CommandContext(t.Context(), bob, args...)
				cmd.Dir, cmd.Env = b.dir, []string{"HOME=" + b.dir, path, "BOB_CACHE_SYNC=false", "BOB_CACHE_DIR=" + b.dir + "/cache-" + name}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", name, err, out)
				}
			}
			result, err := os.ReadFile(b.dir + "/out-" + name + "/result")
			check(t, err)
			return string(result)
		}
		open := build("host", false, "PATH="+os.Getenv("PATH"))
		for _, at := range []string{hostLoopback, hostAddress, hostOther, metadata, outside} {
			if !strings.Contains(open, at+": this is "+at+"\n") {
				t.Fatalf("with the host's network, nothing is at %s:\n%s", at, open)
			}
		}
		for name, test := range map[string]struct {
			program string
			root    bool
			flags   []string
		}{
			"pasta":               {program: "pasta"},
			"pasta-root":          {program: "pasta", root: true},
			"pasta-rootless":      {program: "pasta", root: true, flags: []string{"--rootless"}},
			"slirp4netns":         {program: "slirp4netns"},
			"slirp4netns-root":    {program: "slirp4netns", root: true},
			"slirp4netns-default": {program: "slirp4netns", flags: []string{"--allow=network.host"}},
		} {
			got := build(name, test.root, b.withPrograms(test.program), append(test.flags, "--network=private")...)
			for _, at := range []string{hostLoopback, hostAddress, hostOther, metadata, "10.0.2.2"} {
				if strings.Contains(got, at+": this is") || !strings.Contains(got, at+": ") {
					t.Errorf("%s: %s is reached:\n%s", name, at, got)
				}
			}
			for _, at := range []string{outside, outsideName} {
				if !strings.Contains(got, at+": this is "+outside+"\n") {
					t.Errorf("%s: %s isn't reached:\n%s", name, at, got)
				}
			}
			if resolv, err := os.ReadFile(b.dir + "/out-" + name + "/resolv"); err != nil || strings.Contains(string(resolv), stubResolver) || !strings.Contains(string(resolv), "search test\n") {
				t.Errorf("%s: resolv.conf is\n%s", name, resolv)
			}
			check(t, os.RemoveAll(b.dir+"/bin-"+test.program))
		}
	})
}

// TestPrivateNetworkEnds kills bob, and the program that carries the packets.
func TestPrivateNetworkEnds(t *testing.T) {
	t.Parallel()
	inSmallWorld(t, func(w *smallWorld) {
		b := newWorkbench(t)
		w.writeReaching(b)
		b.write(map[string]string{"context/root/reach": "echo started; busybox sleep 3000\n"})
		for _, program := range []string{"pasta", "slirp4netns"} {
			path := b.withPrograms(program)
			for name, end := range map[string]func(r *running) int{
				"SIGKILL": func(r *running) int {
					check(t, r.Signal(syscall.SIGKILL))
					return 137
				},
				"SIGTERM": func(r *running) int {
					check(t, r.Signal(syscall.SIGTERM))
					return 143
				},
				"the program's end": func(*running) int {
					killWith(t, program, b.dir+"/cache/")
					return 1
				},
			} {
				seen := watchFor(" started\n")
				r := b.start(harness.Invocation{
					Args: []string{"build", "--progress=plain", "--network=private", "-o", "out", "context"}, Env: []string{path}, Stderr: seen,
				})
				r.until(t, seen.done)
				want := end(r)
				<-r.ended
				if r.result.Code != want {
					t.Errorf("%s, %s: exit code %d, want %d\n%s", program, name, r.result.Code, want, r.result.Stderr)
				}
				if want == 1 && !matches("Dockerfile:4: .*the private network broke: "+program+" ended: signal: killed", r.result.Stderr) {
					t.Errorf("%s, %s: %s", program, name, r.result.Stderr)
				}
				for _, left := range r.Leftovers() {
					if name != "SIGKILL" || !strings.HasPrefix(left, "file: ") {
						t.Errorf("%s, %s left %s", program, name, left)
					}
				}
			}
		}
	})
}

// killWith kills the processes of a program whose command line contains text.
func killWith(t *testing.T, program, text string) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	check(t, err)
	killed := false
	for _, dir := range dirs {
		line, _ := os.ReadFile(dir + "/cmdline")
		var pid int
		if first, _, _ := strings.Cut(string(line), "\x00"); filepath.Base(first) != program || !strings.Contains(string(line), text) {
			continue
		}
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err == nil {
			killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
		}
	}
	if !killed {
		t.Fatalf("no %s runs", program)
	}
}

// TestPrivateNetworkRefused asks for a private network where something is missing,
// or not allowed.
func TestPrivateNetworkRefused(t *testing.T) {
	t.Parallel()
	inSmallWorld(t, func(w *smallWorld) {
		b := newWorkbench(t)
		w.writeReaching(b)
		without, with := b.withPrograms(), b.withPrograms("slirp4netns")
		refuse := func(path, want string, flags ...string) {
			t.Helper()
			result := b.run(harness.Invocation{Env: []string{path}, Args: append([]string{"build", "--progress=plain", "--network=private", "-o", "out"}, append(flags, "context")...)})
			if result.Code != 1 || !matches(want, result.Stderr) {
				t.Errorf("exit code %d, want an error with %q:\n%s", result.Code, want, result.Stderr)
			}
		}
		refuse(without, "Dockerfile:4: .*neither pasta nor slirp4netns.*apt-get install passt")
		check(t, unix.Chmod("/dev/net/tun", 0o600))
		refuse(with, "Dockerfile:4: .*/dev/net/tun.*can't be opened by this user.*")
		check(t, unix.Unmount("/dev/net/tun", 0))
		check(t, unix.Mount("/dev/null", "/dev/net/tun", "", unix.MS_BIND, ""))
		refuse(with, "Dockerfile:4: .*slirp4netns: exit status 1")

		b.write(map[string]string{"context/Dockerfile": "FROM scratch\nCOPY root /\nRUN --network=host [\"/bin/busybox\", \"true\"]\n"})
		refuse(with, "Dockerfile:3: .*network.host is not allowed")
		result := b.run(harness.Invocation{Env: []string{with}, Args: []string{"build", "--network=private", "--allow=network.host", "-o", "out", "context"}})
		if result.Code != 0 {
			t.Errorf("--allow=network.host: exit code %d\n%s", result.Code, result.Stderr)
		}
		b.write(map[string]string{"context/Dockerfile": "FROM scratch\nCOPY root /\nRUN --network=none [\"/bin/busybox\", \"sh\", \"-c\", \"[ $(/bin/busybox ls /sys/class/net) = lo ]\"]\n"})
		if result := b.run(harness.Invocation{Env: []string{without}, Args: []string{"build", "--network=private", "-o", "out", "context"}}); result.Code != 0 {
			t.Errorf("RUN --network=none: exit code %d\n%s", result.Code, result.Stderr)
		}
	})
}
