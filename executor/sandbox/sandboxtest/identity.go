package sandboxtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// becomeVariable holds the identity that a process takes first.
const becomeVariable = "SANDBOX_TEST_BECOME"

// Init has this process become whom [Again] asked for. TestMain calls it first.
func Init() {
	if encoded := os.Getenv(becomeVariable); encoded != "" {
		fmt.Fprintln(os.Stderr, become(encoded))
		os.Exit(125)
	}
}

// An Identity is another user, and what the user finds in some files of the machine.
type Identity struct {
	UID        int
	Files      map[string]string // bind mounts: path of the machine, its replacement
	Mounts     []Mount           // made before those of Files
	Filter     map[int]uint32    // a seccomp filter: number of a system call, what happens at it
	Docker     bool              // whether Docker's seccomp filter is loaded
	NoNewPrivs bool
	Chroot     string // the new root
	LessPowers bool   // whether CAP_SYS_ADMIN is gone
	// DockerPowers is whether there are no more capabilities than those of
	// Docker's default containers.
	DockerPowers bool
	Odd          bool // whether it is root of a user namespace with few IDs
	// NoUserNamespaces is whether a seccomp filter refuses them.
	NoUserNamespaces bool
}

// A Mount is one of a new file system.
type Mount struct {
	Kind, Target string
	Flags        uintptr
}

// become gives this process, which has a mount namespace of its own, the
// encoded identity and starts it again. It returns only if that fails.
func become(encoded string) error {
	var id Identity
	if err := json.Unmarshal([]byte(encoded), &id); err != nil {
		return err
	}
	for _, m := range id.Mounts {
		if err := unix.Mount(m.Kind, m.Target, m.Kind, m.Flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.Kind, m.Target, err)
		}
	}
	for path, replacement := range id.Files {
		if err := unix.Mount(replacement, id.Chroot+path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
	}
	if err := os.Unsetenv(becomeVariable); err != nil {
		return err
	}
	// The filter, like the capability that installing it takes, is the
	// thread's; the one that executes keeps it.
	runtime.LockOSThread()
	if err := id.restrict(); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(id.UID); err != nil {
		return err
	}
	if err := syscall.Setuid(id.UID); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// restrict takes from this thread what id hasn't.
func (id *Identity) restrict() error {
	if id.Chroot != "" {
		if err := errors.Join(unix.Chroot(id.Chroot), unix.Chdir("/")); err != nil {
			return err
		}
	}
	if id.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if id.Docker {
		if err := loadDockerFilter(); err != nil {
			return err
		}
	}
	if len(id.Filter) > 0 {
		if err := loadFilter(id.Filter); err != nil {
			return err
		}
	}
	if id.NoUserNamespaces {
		if err := refuseUserNamespaces(); err != nil {
			return err
		}
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		const docker = 0xa80425fb
		if id.DockerPowers && docker>>c&1 == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
	}
	if id.LessPowers {
		return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0)
	}
	return nil
}

// Refused is what a seccomp filter does at a system call that Docker's refuses.
const Refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)

// loadFilter loads a seccomp filter that does what actions say. What it notifies
// of is answered by nobody as long as this process, or one that it executes, lives.
func loadFilter(actions map[int]uint32) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the system call's number
	flags := uintptr(0)
	for number, action := range actions {
		if action == unix.SECCOMP_RET_USER_NOTIF {
			flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		}
		filter = append(
			filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(number), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action},
		)
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	if flags != 0 {
		_, err := unix.FcntlInt(listener, unix.F_SETFD, 0)
		return err
	}
	return nil
}

// refuseUserNamespaces loads a filter that refuses clone(2) of one.
func refuseUserNamespaces() error {
	const firstArgument = 16 // in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: firstArgument},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_NEWUSER, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: Refused},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return errno
	}
	return nil
}

// loadDockerFilter loads the filter that Docker's default containers have.
func loadDockerFilter() error {
	profile, err := mobyseccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_CHROOT"}}},
	})
	if err != nil {
		return err
	}
	config, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return err
	}
	_, err = seccomp.InitSeccomp(config)
	return err
}

// Filter returns a filter for [Identity.Filter] that does one thing at all calls.
func Filter(action uint32, calls ...int) map[int]uint32 {
	filter := map[int]uint32{}
	for _, number := range calls {
		filter[number] = action
	}
	return filter
}
