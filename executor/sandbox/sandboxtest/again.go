// Package sandboxtest has tests run as other users, and refused what machines refuse:
// it starts the test binary again. Nothing is changed on the machine, since another user
// finds an entry in /etc/passwd and ranges in /etc/subuid and /etc/subgid only in a mount
// namespace of the test's own.
package sandboxtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/seccomp"
)

// againVariable says that a process was started by Again.
const againVariable = "SANDBOX_TEST_AGAIN"

// Again returns a command that runs this test binary with the arguments, as another user
// unless id is nil. The TestMain of the binary calls [Init].
func Again(t testing.TB, id *Identity, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), againVariable+"=1")
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

// NeedSeccomp skips the test if the binary can't load seccomp filters.
func NeedSeccomp(t testing.TB) {
	t.Helper()
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
}

// The user that tests become.
const (
	UID  = 54321
	Name = "sandboxtest"
)

// User returns the user who finds passwd, and behind it the machine's own, in
// /etc/passwd, and ranges in /etc/subuid and /etc/subgid. It skips the test if this
// process can't become another user.
func User(t testing.TB, passwd, ranges string) *Identity {
	t.Helper()
	if os.Getenv(againVariable) != "" || os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir := t.TempDir()
	machine, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	id := &Identity{UID: UID, Files: map[string]string{}}
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

// OrdinaryUser returns a user with all that a sandbox takes.
func OrdinaryUser(t testing.TB) *Identity {
	return User(t,
		fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", Name, UID, UID),
		Name+":700000:65536\n")
}

// WithoutRanges returns a user who has no subordinate IDs.
func WithoutRanges(t testing.TB) *Identity {
	return User(t, fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", Name, UID, UID), "")
}

// InUserNamespace reports whether this process is in a user namespace other than the
// machine's, whose file has a number of its own (PROC_USER_INIT_INO of linux/nsfs.h).
func InUserNamespace(t testing.TB) bool {
	t.Helper()
	const first = 0xEFFFFFFD
	info, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Ino != first
}

// LowerLimit has the user namespace of this process, which must not be the machine's,
// allow no other below it during the test.
func LowerLimit(t *testing.T) {
	t.Helper()
	const limit = "/proc/sys/user/max_user_namespaces"
	old, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, old, 0); err != nil {
			t.Error(err)
		}
	})
}

// Start starts the command and waits until it says "ready PID". It returns that PID.
func Start(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, errPID := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "ready ")))
	if err != nil || errPID != nil {
		t.Fatalf("%q: %v, %v", line, err, errPID)
	}
	return pid
}

// Gone waits until alive no longer holds.
func Gone(t *testing.T, alive func() bool) {
	t.Helper()
	for range 1000 {
		if !alive() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("still running")
}
