package sandbox_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
)

// dockerCapabilities are those of Docker's default containers.
var dockerCapabilities = strings.Fields("CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT")

// TestChrootInRunc runs the tests of a chroot in a container of the machine's runc
// that is as Docker's, device cgroup included. Its root file system is the machine's.
func TestChrootInRunc(t *testing.T) {
	t.Parallel()
	if os.Getenv(modeVariable) != "" || os.Getuid() != 0 || errNotEntered != nil || sandboxtest.InUserNamespace(t) {
		t.Skip("only root can have runc make containers of root")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skipf("%v: apt-get install runc", err)
	}
	bundle := t.TempDir()
	if err := os.Mkdir(filepath.Join(bundle, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(dockerSpec(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	// Enter has made the cgroups read-only.
	const script = `for m in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,rw "$m"; done 2> /dev/null
		mount --bind / rootfs && exec "$@"`
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script, "sh", runc, "--root", filepath.Join(bundle, "state"), "run", "bob-"+unique())
	cmd.Dir = bundle
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nPASS\n") {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// dockerSpec is what Docker tells runc of a container, here of one that runs the
// tests of a chroot.
func dockerSpec(t testing.TB) *specs.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{
		Version:  "1.0.2",
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "container",
		Process: &specs.Process{
			// The shell is the first process, which can't be killed.
			Args: []string{"/bin/sh", "-c", `"$@"; exit $?`, "sh", self, "-test.count=1", "-test.v", "-test.run=^TestInChroot"},
			Env:  append(os.Environ(), modeVariable+"="+modeChroot, programsVariable+"="+programs(t)),
			Cwd:  dir,
			Capabilities: &specs.LinuxCapabilities{
				Bounding: dockerCapabilities, Effective: dockerCapabilities, Permitted: dockerCapabilities,
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources:     &specs.LinuxResources{Devices: dockerDevices()},
		},
	}
	spec.Linux.Seccomp, err = mobyseccomp.GetDefaultProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// dockerDevices are the rules of Docker's device cgroup: any device may be made, few
// may be opened.
func dockerDevices() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Access: "m"},
		{Allow: true, Type: "b", Access: "m"},
	}
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d[0], Minor: &d[1], Access: "rwm"})
	}
	return rules
}
