package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// confineVariable has a process of the tests confine itself and execute its arguments.
const confineVariable = "BOB_TEST_CONFINEMENT"

// A Confinement is a restricted place to run a program in, made of namespaces,
// capabilities and seccomp filters, without any container software. Only root can.
type Confinement struct {
	// UID is the user and group, without an entry in any file.
	UID int
	// OddIDs has root of the user namespace that some workspaces have, with few IDs.
	OddIDs bool
	// NoNamespaces has the user namespace of OddIDs allow none below it.
	NoNamespaces bool
	// Refuse are system calls that fail with EPERM.
	Refuse []int
	// NoNewPrivs sets no_new_privs; Powerless drops CAP_SYS_ADMIN.
	NoNewPrivs, Powerless bool
	// Overlay, if not "", is a directory that an overlay is mounted over.
	Overlay string
	// Proc is whether a part of /proc is hidden, as container engines do.
	Proc bool
}

// Confine must be called first in TestMain. In a process of a Confinement's it does
// not return.
func Confine() {
	encoded, found := os.LookupEnv(confineVariable)
	if !found {
		return
	}
	fmt.Fprintln(os.Stderr, "confine:", confined(encoded))
	os.Exit(125)
}

// Command returns the command that runs a program with the environment in c.
func (c *Confinement) Command(ctx context.Context, dir string, env []string, args ...string) (*exec.Cmd, error) {
	encoded, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Dir, cmd.Env = dir, append(env, confineVariable+"="+string(encoded))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if c.OddIDs {
		ids := []syscall.SysProcIDMap{{HostID: 33333, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65534}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{}, Pdeathsig: syscall.SIGKILL,
		}
	}
	return cmd, nil
}

// confined confines this process and executes its arguments. It returns only if
// that fails.
func confined(encoded string) error {
	var c Confinement
	if err := json.Unmarshal([]byte(encoded), &c); err != nil {
		return err
	}
	if err := os.Unsetenv(confineVariable); err != nil {
		return err
	}
	if c.Overlay != "" {
		if err := coverByOverlay(c.Overlay); err != nil {
			return err
		}
	}
	if c.Proc {
		if err := unix.Mount("/dev/null", "/proc/timer_list", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide /proc/timer_list: %w", err)
		}
	}
	if c.NoNamespaces {
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			return err
		}
	}
	// The filter and the capabilities are those of the thread that executes.
	runtime.LockOSThread()
	if c.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if err := refuseCalls(c.Refuse); err != nil {
		return err
	}
	if c.Powerless {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
			return err
		}
	}
	if c.UID != 0 {
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := syscall.Setgid(c.UID); err != nil {
			return err
		}
		if err := syscall.Setuid(c.UID); err != nil {
			return err
		}
	}
	return syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
}

// coverByOverlay mounts an overlay over a directory, whose upper directory is in a
// tmpfs beside it.
func coverByOverlay(dir string) error {
	below := dir + ".below"
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", below, err)
	}
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(below, name), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(below, "upper"), 0o777); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", below)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay on %s: %w", dir, err)
	}
	return nil
}

// refuseCalls loads a seccomp filter into this thread with which the system calls
// fail with EPERM.
func refuseCalls(calls []int) error {
	if len(calls) == 0 {
		return nil
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for _, number := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(number), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// A Container is one of Debian's runc or crun, with Docker's defaults: capabilities,
// seccomp profile, masked and read-only paths; but with the network of the machine.
type Container struct {
	Runtime string   // "runc" or "crun"
	Shared  []string // directories and files that are at the same place inside
	UID     int
	NoCaps  bool // whether all capabilities are dropped, and no_new_privs is set
	// ReadOnly is whether the root is; /tmp is then, too.
	ReadOnly bool
}

// dockerCapabilities are the capabilities of a container of Docker's.
var dockerCapabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// Command returns the command that runs a program with the environment in a
// container, whose bundle it makes in an empty directory.
func (c *Container) Command(ctx context.Context, bundle, dir string, env []string, args ...string) (*exec.Cmd, error) {
	spec, err := c.spec(dir, env, args)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(bundle, "root")
	for _, d := range []string{"tmp", "proc", "sys", "dev", "etc", "run"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o1777); err != nil {
		return nil, err
	}
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"} {
		if data, err := os.ReadFile(name); err == nil {
			if err := os.WriteFile(root+name, data, 0o644); err != nil {
				return nil, err
			}
		}
	}
	if err := os.WriteFile(root+"/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644); err != nil {
		return nil, err
	}
	for _, path := range c.Shared {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: path, Source: path, Type: "bind", Options: []string{"rbind", "nosuid", "nodev"}})
	}
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), encoded, 0o644); err != nil {
		return nil, err
	}
	command := []string{c.Runtime, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, "bob-" + filepath.Base(filepath.Dir(bundle)) + "-" + filepath.Base(bundle)}
	if c.Runtime == "crun" { // which refuses machines that have cgroups of both versions
		hide := `! test -d /sys/fs/cgroup/unified || umount -l /sys/fs/cgroup/unified; exec "$@"`
		command = append([]string{"unshare", "-m", "sh", "-c", hide, "sh"}, command...)
	}
	return exec.CommandContext(ctx, command[0], command[1:]...), nil
}

func (c *Container) spec(dir string, env, args []string) (*specs.Spec, error) {
	caps := dockerCapabilities
	if c.NoCaps {
		caps = []string{}
	}
	spec := &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args: args, Cwd: dir, Env: env, User: specs.User{UID: uint32(c.UID), GID: uint32(c.UID)}, NoNewPrivileges: c.NoCaps,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Root:     &specs.Root{Path: "root", Readonly: c.ReadOnly},
		Hostname: "container",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}},
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	var err error
	spec.Linux.Seccomp, err = mobyseccomp.GetDefaultProfile(spec)
	return spec, err
}
