package sandbox_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
)

// The tests of this package run containers, and so in entered processes. Run
// by root, every test runs three times: as root, as root without powers and as
// an ordinary user, the last two in processes that TestModes starts from the
// same binary. Run by anyone else, every test runs once, as that user.
//
// The ordinary user has an entry in /etc/passwd and ranges in /etc/subuid and
// /etc/subgid only in a mount namespace of his own: nothing is added to the
// machine.
const (
	modeVariable = "SANDBOX_TEST_MODE"
	modeRootless = "rootless"
	modeUser     = "user"
	modeOneID    = "one ID"

	// becomeVariable has a process first become another user, see identity.
	becomeVariable = "SANDBOX_TEST_BECOME"
	// isolationVariable is the isolation to enter in place of Namespaces.
	isolationVariable = "SANDBOX_TEST_ISOLATION"
	// probeVariable has a process do one thing instead of the tests, after
	// it has entered, see probe.
	probeVariable = "SANDBOX_TEST_PROBE"
)

// errNotEntered is why the tests that run containers are skipped, nil if they
// aren't.
var errNotEntered error

// entered is the mode that the tests run in.
var entered *isolation.Mode

// busybox is the program that root file systems are made of.
const busybox = "/bin/busybox"

func TestMain(m *testing.M) {
	sandbox.Init()
	doctor.Init()
	if encoded := os.Getenv(becomeVariable); encoded != "" {
		fmt.Fprintln(os.Stderr, become(encoded))
		os.Exit(125)
	}
	// What the sandbox makes may not depend on it; the tests change modes.
	unix.Umask(0o077)
	if encoded := os.Getenv(examineVariable); encoded != "" {
		os.Exit(examine(encoded))
	}
	mode := os.Getenv(modeVariable)
	switch mode {
	case modeOneID:
		enterOneID()
		os.Exit(m.Run())
	case modeChroot:
		errNotEntered = errors.New("these tests take namespaces")
		if os.Getenv(probeVariable) != "" {
			os.Exit(runKilled())
		}
		os.Exit(m.Run())
	}
	wanted := isolation.Kind(cmp.Or(os.Getenv(isolationVariable), string(isolation.Namespaces)))
	entered, errNotEntered = isolation.Enter(isolation.Options{Rootless: mode == modeRootless, Isolation: wanted})
	if errNotEntered != nil && mode != "" {
		fmt.Fprintln(os.Stderr, errNotEntered)
		os.Exit(124)
	}
	if os.Getenv(noUserNamespaceVariable) == "limited" {
		// Of the namespace that was entered.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(123)
		}
	}
	if name := os.Getenv(probeVariable); name != "" {
		os.Exit(probe(name))
	}
	code := m.Run()
	_ = os.RemoveAll(programsDir())
	os.Exit(code)
}

// identity is another user and what he finds in some files of the machine.
type identity struct {
	UID        int
	Files      map[string]string // bind mounts: path of the machine, its replacement
	Mounts     []mount           // made before those of Files
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

// mount is one of a new file system.
type mount struct {
	Kind, Target string
	Flags        uintptr
}

// become gives this process, which has a mount namespace of its own, the
// encoded identity and starts it again. It returns only if that fails.
func become(encoded string) error {
	var id identity
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
func (id *identity) restrict() error {
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

// refused is what a seccomp filter does at a system call that Docker's refuses.
const refused = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)

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
		{Code: unix.BPF_RET | unix.BPF_K, K: refused},
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

// again returns a command that runs this test binary with the arguments, in
// the mode, and as another user unless id is nil.
func again(t testing.TB, mode string, id *identity, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), modeVariable+"="+mode)
	if id != nil {
		encoded, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, becomeVariable+"="+string(encoded))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if id.Odd {
			maps := []syscall.SysProcIDMap{{HostID: 33333, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65534}}
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, UidMappings: maps, GidMappings: maps, GidMappingsEnableSetgroups: true,
				Credential: &syscall.Credential{}, // root there
			}
		}
	}
	return cmd
}

// The user that tests become.
const (
	testUID  = 54321
	testName = "sandboxtest"
)

// testUser returns the user with the content of /etc/passwd, /etc/subuid and
// /etc/subgid. The real /etc/passwd follows his entry.
func testUser(t testing.TB, passwd, ranges string) *identity {
	t.Helper()
	if os.Getenv(modeVariable) != "" || os.Getuid() != 0 || errNotEntered != nil {
		t.Skip("only root can become another user")
	}
	dir := t.TempDir()
	machine, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	id := &identity{UID: testUID, Files: map[string]string{}}
	for path, content := range map[string]string{
		"/etc/passwd": passwd + string(machine), "/etc/subuid": ranges, "/etc/subgid": ranges,
	} {
		if _, err := os.Stat(path); err != nil {
			t.Skipf("%v: apt-get install uidmap", err)
		}
		id.Files[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(id.Files[path], []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(id.Files[path], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// ordinaryUser is a testUser with all that it takes.
func ordinaryUser(t testing.TB) *identity {
	return testUser(t,
		fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", testName, testUID, testUID),
		testName+":700000:65536\n")
}

// withoutRanges is a testUser who has no subordinate IDs.
func withoutRanges(t testing.TB) *identity {
	return testUser(t, fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", testName, testUID, testUID), "")
}

func TestModes(t *testing.T) {
	if os.Getenv(modeVariable) != "" || errNotEntered != nil || inUserNamespace(t) {
		t.Skip("only root runs the tests in other modes")
	}
	dir := programs(t)
	for mode, id := range map[string]*identity{modeRootless: nil, modeUser: ordinaryUser(t), modeOneID: withoutRanges(t)} {
		t.Run(mode, func(t *testing.T) {
			args := []string{"-test.count=1", "-test.timeout=20m"}
			if mode != modeUser { // where these, which take long, find nothing more
				args = append(args, "-test.skip=^(TestDescriptorAsWorkingDirectory|TestCancelAtAnyTime|TestLongLine|TestThreadsStay|TestNo.*Traces|TestSwappedMountPoints|TestRacedMountTargets|TestConcurrentRuns)$")
			}
			if testing.Verbose() {
				args = append(args, "-test.v")
			}
			cmd := again(t, mode, id, args...)
			cmd.Env = append(cmd.Env, programsVariable+"="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

// inUserNamespace reports whether this process is in a user namespace other than the
// machine's, whose file has a number of its own (PROC_USER_INIT_INO of linux/nsfs.h).
func inUserNamespace(t testing.TB) bool {
	t.Helper()
	const first = 0xEFFFFFFD
	info, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Ino != first
}

// oneIDVariable says that the process is in namespaces that enterOneID made.
const oneIDVariable = "SANDBOX_TEST_ONE_ID"

// enterOneID has this process run again in a user namespace that has no other ID
// than that of its user, and ends with it. There it returns.
func enterOneID() {
	if os.Getenv(oneIDVariable) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(124)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), oneIDVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	runtime.LockOSThread() // whose end the signal is about
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(124)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}
