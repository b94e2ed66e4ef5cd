package sandbox_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
)

// boundProcVariable says that the tests run where /proc is partly masked.
const boundProcVariable = "SANDBOX_TEST_BOUND_PROC"

// lockedVariable names a file system that was mounted with restrictions outside of
// the user namespace that the tests run in.
const lockedVariable = "SANDBOX_TEST_LOCKED"

// newMountCalls are what container engines and workspaces refuse, each its own choice
// of them.
var newMountCalls = []int{
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
}

// TestFallbacks runs a few tests on a machine that refuses something, or has it in
// an unusual place.
func TestFallbacks(t *testing.T) {
	t.Parallel()
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	const cgroups = "/sys/fs/cgroup"
	dir := programs(t)
	locked := sandboxtest.Mount{Kind: "tmpfs", Target: "/srv", Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RDONLY}
	for _, test := range []struct {
		name   string
		mode   string // modeUser unless given
		change func(*sandboxtest.Identity)
		env    []string
	}{
		{
			name:   "masked proc",
			change: func(id *sandboxtest.Identity) { id.Files["/proc/timer_list"] = "/dev/null" },
			env:    []string{boundProcVariable + "=1"},
		},
		{
			name:   "masked sys",
			change: func(id *sandboxtest.Identity) { id.Files["/sys/power/state"] = "/dev/null" },
		},
		{name: "no pivot_root", change: func(id *sandboxtest.Identity) {
			id.Filter = sandboxtest.Filter(sandboxtest.Refused, unix.SYS_PIVOT_ROOT)
		}},
		{name: "no open_tree, no move_mount", change: func(id *sandboxtest.Identity) {
			id.Filter = sandboxtest.Filter(sandboxtest.Refused, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT)
		}},
		{
			name: "no new mount calls", change: func(id *sandboxtest.Identity) {
				id.Filter, id.Mounts = sandboxtest.Filter(sandboxtest.Refused, newMountCalls...), []sandboxtest.Mount{locked}
			},
			env: []string{lockedVariable + "=/srv"},
		},
		{
			name: "a kernel without the new mount calls", change: func(id *sandboxtest.Identity) {
				id.Filter = sandboxtest.Filter(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS), newMountCalls...)
			},
		},
		{
			name: "root without the new mount calls", mode: "root",
			change: func(id *sandboxtest.Identity) {
				id.UID, id.Filter = 0, sandboxtest.Filter(sandboxtest.Refused, newMountCalls...)
			},
		},
		{name: "locked mounts", change: func(id *sandboxtest.Identity) { id.Mounts = []sandboxtest.Mount{locked} }, env: []string{lockedVariable + "=/srv"}},
		{name: "no cgroups", change: func(id *sandboxtest.Identity) { id.Mounts = []sandboxtest.Mount{{Kind: "tmpfs", Target: cgroups}} }},
		{
			name: "cgroups somewhere else", change: func(id *sandboxtest.Identity) {
				id.Mounts = []sandboxtest.Mount{{Kind: "tmpfs", Target: cgroups}, {Kind: "cgroup2", Target: "/srv", Flags: unix.MS_NOSUID}}
				id.Filter = sandboxtest.Filter(sandboxtest.Refused, newMountCalls...)
			},
		},
		{
			name: "root of a namespace with few IDs", mode: "root",
			change: func(id *sandboxtest.Identity) {
				*id = sandboxtest.Identity{Odd: true, Filter: sandboxtest.Filter(sandboxtest.Refused, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT)}
			},
		},
		{
			name: "root of a namespace with few IDs, without powers", mode: modeRootless,
			change: func(id *sandboxtest.Identity) { *id = sandboxtest.Identity{Odd: true} },
		},
		{
			name: "everything",
			change: func(id *sandboxtest.Identity) {
				id.Files["/proc/timer_list"] = "/dev/null"
				id.Files["/sys/power/state"] = "/dev/null"
				id.Filter = sandboxtest.Filter(sandboxtest.Refused, append(newMountCalls, unix.SYS_PIVOT_ROOT)...)
				id.Mounts = []sandboxtest.Mount{{Kind: "tmpfs", Target: cgroups}, locked}
			},
			env: []string{boundProcVariable + "=1", lockedVariable + "=/srv"},
		},
		{name: "no user namespaces", change: func(*sandboxtest.Identity) {}, env: []string{noUserNamespaceVariable + "=limited"}},
		{
			name: "root without user namespaces", mode: "root",
			change: func(id *sandboxtest.Identity) { id.UID, id.NoUserNamespaces = 0, true }, env: []string{noUserNamespaceVariable + "=refused"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := ordinaryUser(t)
			test.change(id)
			for path := range id.Files {
				if _, err := os.Stat(path); err != nil {
					t.Skip(err)
				}
			}
			tests := "TestProc|TestOwnUserNamespace|TestNetworkOfHost|TestDevices|TestOtherProcesses|TestPrivate|TestHostNetwork|TestNetworkNone|TestSetuid|TestDaemonsDie|TestCancel|TestReadOnlyEverywhere|TestLockedMounts"
			if strings.Contains(test.name, "new mount calls") || test.name == "everything" { // mount points are made otherwise then
				tests += "|TestNoTraces"
			}
			cmd := again(t, cmp.Or(test.mode, modeUser), id, "-test.v", "-test.run=^("+tests+")$")
			cmd.Env = append(append(cmd.Env, programsVariable+"="+dir), test.env...)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestProc") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// TestReadOnlyEverywhere looks for a mount that should be read-only, whatever the
// machine lets bob change mounts with, and isn't: of /sys, of a bound tree, or of a
// device.
func TestReadOnlyEverywhere(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	if err := os.Mkdir(filepath.Join(shared, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(shared, "below"), "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(filepath.Join(shared, "below"), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var out bytes.Buffer
	p := shell(newRoot(t), "/bin/busybox cat /proc/self/mountinfo; echo x > /shared/f; echo x > /shared/below/f; echo written $?; echo x > /dev/null && echo null")
	p.Mounts = []sandbox.Mount{{Source: shared, Target: "/shared", ReadOnly: true}}
	p.Stdout = &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "written 1\nnull\n") {
		t.Errorf("output ends %q", out.String()[max(0, out.Len()-50):])
	}
	options := map[string]string{} // of the mounts that nothing hides
	for line := range strings.Lines(out.String()) {
		if fields := strings.Fields(line); len(fields) > 5 {
			options[fields[4]] = fields[5]
		}
	}
	for target, want := range map[string][]string{
		"/shared": {"nodev"}, "/shared/below": {"nodev", "noexec"}, "/sys": {"nosuid", "nodev", "noexec"}, "/dev/null": {"nosuid", "noexec"},
	} {
		for _, name := range append(want, "ro") {
			if !slices.Contains(strings.Split(options[target], ","), name) {
				t.Errorf("%s is not %s: %s", target, name, options[target])
			}
		}
	}
	for target := range options {
		if strings.HasPrefix(target, "/sys/") && !strings.HasPrefix(options[target], "ro,") {
			t.Errorf("%s is writable: %s", target, options[target])
		}
	}
}

// TestLockedMounts binds a file system whose restrictions were set by somebody with
// more powers, which the kernel lets nobody take away.
func TestLockedMounts(t *testing.T) {
	t.Parallel()
	source := os.Getenv(lockedVariable)
	if source == "" {
		t.Skip("there is none")
	}
	for _, readOnly := range []bool{false, true} {
		var out bytes.Buffer
		p := shell(newRoot(t), "/bin/busybox grep ' /locked ' /proc/self/mountinfo")
		p.Mounts = []sandbox.Mount{{Source: source, Target: "/locked", ReadOnly: readOnly}}
		p.Stdout = &out
		if err := newRunner(t).Run(t.Context(), p); err != nil {
			t.Errorf("read-only %t: %v", readOnly, err)
		}
		if !strings.Contains(out.String(), " ro,nosuid,nodev,noexec,noatime ") {
			t.Errorf("read-only %t: it is %s", readOnly, &out)
		}
	}
}

func TestProc(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &sandbox.Process{
		Root: newRoot(t), Args: []string{"/bin/busybox", "readlink", "/proc/self"}, Stdout: &out,
	}
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if own, bound := out.String() == "1\n", os.Getenv(boundProcVariable) != ""; own == bound {
		t.Errorf("/proc/self is %s, though it is bound from outside: %t", &out, bound)
	}
}

// TestOtherProcesses tries what processes outside of the container, which are
// visible where /proc is bound from outside, give away to one of the same user. It
// is not parallel: other containers do give themselves away.
func TestOtherProcesses(t *testing.T) { //nolint:paralleltest // see above
	var out bytes.Buffer
	p := shell(newRoot(t, [2]string{"marker", ""}), "for p in /proc/[0-9]*; do [ -e $p/root/marker ] || "+
		"for f in root cwd exe fd/0 ns/mnt ns/user; do [ ! -e $p/$f ] || echo $p/$f; done; done; "+
		"/bin/busybox cat /proc/[0-9]*/environ 2> /dev/null | /bin/busybox grep -a "+modeVariable)
	p.Stdout = &out
	if err := newRunner(t).Run(t.Context(), p); err == nil || out.Len() > 0 {
		t.Errorf("%v, a command reaches %s", err, &out)
	}
}

// TestPrivate has a command look for the secrets of another one when that has
// started, or has had the time to.
func TestPrivate(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	shared := t.TempDir()
	if err := os.Chmod(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	share := sandbox.Mount{Source: shared, Target: "/shared"}
	secret := "secret " + unique()
	private := shell(newRoot(t), "/bin/busybox touch /shared/private; until [ -e /shared/looked ]; do /bin/busybox sleep 0.01; done")
	private.Private = true
	private.Env = append(private.Env, "TOKEN="+secret)
	private.Mounts = []sandbox.Mount{share, {Kind: sandbox.Memory, Target: "/key", File: sandbox.File{Content: []byte(secret), Mode: 0o400}}}
	var seen bytes.Buffer
	looks := shell(newRoot(t), "/bin/busybox touch /shared/looks; i=0; until [ -e /shared/private ] || [ $i = 100 ]; do i=$((i+1)); /bin/busybox sleep 0.02; done; "+
		"/bin/busybox cat /proc/[0-9]*/root/key /proc/[0-9]*/environ 2> /dev/null | /bin/busybox grep -a '"+secret+"'; true")
	looks.Mounts, looks.Stdout = []sandbox.Mount{share}, &seen
	// What the machine refuses is known from here on.
	if err := r.Run(t.Context(), shell(newRoot(t), "true")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() {
		ended <- r.Run(t.Context(), looks)
		ended <- os.WriteFile(filepath.Join(shared, "looked"), nil, 0o600)
	}()
	sandboxtest.Gone(t, func() bool {
		_, err := os.Stat(filepath.Join(shared, "looks"))
		return err != nil
	})
	if err := errors.Join(r.Run(t.Context(), private), <-ended, <-ended); err != nil {
		t.Error(err)
	}
	if strings.Contains(seen.String(), secret) {
		t.Errorf("another command sees %q", &seen)
	}
}

func TestNetworkNone(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := shell(newRoot(t), "ping -c 1 127.0.0.1 > /dev/null && echo up; echo x > /sys/kernel/profiling || echo read-only")
	p.Network, p.Stdout = sandbox.None, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "up\nread-only\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
}

func TestNoSeccomp(t *testing.T) {
	t.Parallel()
	if seccomp.Enabled || errNotEntered != nil {
		t.Skip("built with seccomp, or not entered")
	}
	r := &sandbox.Runner{Dir: t.TempDir()}
	if err := r.Run(t.Context(), shell(newRoot(t), "true")); err == nil || !strings.Contains(err.Error(), "-tags seccomp") {
		t.Errorf("error is %v, want one that says how to build", err)
	}
}

// noUserNamespaceVariable says that the tests run where no further user namespace
// can be made, by a filter or, if it is "limited", by the limit of bob's.
const noUserNamespaceVariable = "SANDBOX_TEST_NO_USER_NAMESPACE"

// TestOwnUserNamespace has a command look at its user namespace, and reach for what
// takes a capability in bob's: a new mount of an entered process's own.
func TestOwnUserNamespace(t *testing.T) {
	t.Parallel()
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	maps := make(map[string]string)
	for _, file := range []string{"uid_map", "gid_map"} {
		content, err := os.ReadFile("/proc/self/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			if f := strings.Fields(line); len(f) == 3 {
				maps[file] += f[0] + " " + f[0] + " " + f[2] + "\n"
			}
		}
	}
	refused := os.Getenv(noUserNamespaceVariable) != ""
	for _, insecure := range []bool{false, true} {
		var out bytes.Buffer
		r, notices := newRunner(t), 0
		r.Notice = func(text string) {
			if strings.HasPrefix(text, "a RUN has bob's own user namespace") {
				notices++
			}
		}
		p := shell(newRoot(t), "/bin/busybox readlink /proc/self/ns/user; cd /proc/self; /bin/busybox awk '{print $1, $2, $3}' uid_map gid_map")
		p.Stdout, p.Insecure = &out, insecure
		if err := errors.Join(r.Run(t.Context(), p), r.Run(t.Context(), shell(newRoot(t), "true"))); err != nil {
			t.Fatal(err)
		}
		if refused != (notices == 1) {
			t.Errorf("%d notices of two runs, the machine refuses namespaces: %t", notices, refused)
		}
		namespace, seen, _ := strings.Cut(out.String(), "\n")
		nested := !insecure && !refused
		if (namespace != own) != nested {
			t.Errorf("insecure %t: the command is in %s, bob in %s", insecure, namespace, own)
		}
		if want := maps["uid_map"] + maps["gid_map"]; nested && seen != want {
			t.Errorf("the command's maps are %q, want %q", seen, want)
		}
	}
}
