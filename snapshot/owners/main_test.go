package owners_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// whoVar tells a re-executed test binary who it is: one of the names of runs.
const whoVar = "BOB_OWNERS_TEST_WHO"

// userID is nobody's on this machine.
const userID = 1<<30 + 7

// runs are the processes without IDs to give away that all tests run in again.
var runs = map[string]*syscall.SysProcAttr{
	"one ID": {
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: userID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: userID, Size: 1}},
		Credential:  &syscall.Credential{},
	},
	"no namespace": {Credential: &syscall.Credential{Uid: userID, Gid: userID}},
}

// TestWithoutPrivilege runs all other tests again as each of the runs.
func TestWithoutPrivilege(t *testing.T) {
	if os.Getenv(whoVar) != "" || os.Geteuid() != 0 {
		t.Skip("wants to be root, to become somebody else")
	}
	for name, attr := range runs {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.count=1", "-test.run="+flag.Lookup("test.run").Value.String(), "-test.v")
			cmd.Env = append(os.Environ(), whoVar+"="+name, "TMPDIR=/tmp", "HOME=/")
			cmd.SysProcAttr = attr
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Run()
			if errors.Is(err, syscall.EPERM) {
				t.Skip("not allowed here:", err)
			}
			if err != nil || testing.Verbose() {
				t.Logf("as %s:\n%s", name, out.Bytes())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
