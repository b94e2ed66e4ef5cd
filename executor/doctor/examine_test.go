package doctor_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// examineVariable has a process examine the machine instead of the tests, without
// entering; it holds the options in JSON.
const examineVariable = "DOCTOR_TEST_EXAMINE"

// examination is what Examine returns.
type examination struct {
	Mode     *isolation.Mode
	Findings []doctor.Finding
}

// examine prints what it finds and returns the exit status.
func examine(encoded string) int {
	var o doctor.Options
	if err := json.Unmarshal([]byte(encoded), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var e examination
	e.Mode, e.Findings = doctor.Examine(context.Background(), o)
	if err := json.NewEncoder(os.Stdout).Encode(e); err != nil {
		return 1
	}
	return 0
}

// examineAs returns what the user, root if nil, finds, by name. Nothing may be left
// in the directory, nor a process.
func examineAs(t *testing.T, id *sandboxtest.Identity, o doctor.Options) map[string]doctor.Finding {
	t.Helper()
	cmd := sandboxtest.Again(t, id)
	encoded, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	mark := "DOCTOR_TEST_MARK=" + rand.Text()
	cmd.Env = append(cmd.Env, examineVariable+"="+string(encoded), mark)
	before := entries(t, o.Dir)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output's own
			t.Log(string(exit.Stderr))
		}
		t.Fatal(err)
	}
	var e examination
	if err := json.Unmarshal(out, &e); err != nil {
		t.Fatal(err)
	}
	if after := entries(t, o.Dir); !slices.Equal(before, after) {
		t.Errorf("left in the directory: %v, before there were %v", after, before)
	}
	sandboxtest.Gone(t, func() bool { return len(environWith(mark)) > 0 })
	byName := map[string]doctor.Finding{}
	if e.Mode != nil {
		defer func() {
			byName["mode"] = doctor.Finding{Answer: doctor.Answer(e.Mode.Isolation), Need: doctor.Optional, Detail: e.Mode.String()}
		}()
	}
	for _, f := range e.Findings {
		byName[f.Name] = f
		if _, twice := byName[f.Name]; f.What == "" || !twice {
			t.Errorf("finding %+v", f)
		}
	}
	return byName
}

// entries returns what is in dir; nothing if there is no dir.
func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// environWith returns the processes with the variable in their environment.
func environWith(variable string) (found []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range all {
		if environ, err := os.ReadFile(path); err == nil && strings.Contains(string(environ), variable+"\x00") {
			found = append(found, path)
		}
	}
	return found
}

// userDir makes a directory that belongs to the test user.
func userDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "bob-examine-") //nolint:usetesting // nobody else can reach that
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sandboxtest.Gone(t, func() bool { // the kernel may still be taking away a mount
			err = os.RemoveAll(dir)
			return errors.Is(err, unix.EBUSY)
		})
		if err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, sandboxtest.UID, sandboxtest.UID); err != nil {
		t.Skip(err)
	}
	return dir
}

// wants checks answers, given as "name answer", and words in their reasons and
// fixes, given as "name: words".
func wants(t *testing.T, findings map[string]doctor.Finding, all ...string) {
	t.Helper()
	for _, want := range all {
		if name, words, found := strings.Cut(want, ": "); found {
			if f := findings[name]; !strings.Contains(f.Detail+"\n"+f.Why+"\n"+f.Fix, words) {
				t.Errorf("%s doesn't say %q: %+v", name, words, f)
			}
			continue
		}
		name, answer, _ := strings.Cut(want, " ")
		if f := findings[name]; f.Answer != doctor.Answer(answer) {
			t.Errorf("%s is not %s: %+v", name, answer, f)
		}
	}
}

func TestExamine(t *testing.T) {
	t.Parallel()
	sandboxtest.NeedSeccomp(t)
	user := ordinaryUser(t)
	for name, test := range map[string]struct {
		id       *sandboxtest.Identity
		rootless bool
	}{"user": {id: user}, "root": {}, "root without powers": {rootless: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := doctor.Options{Dir: userDir(t), Rootless: test.rootless, Limit: time.Minute}
			findings := examineAs(t, test.id, o)
			for name, f := range findings {
				if f.Need != doctor.Optional && f.Answer != doctor.Yes {
					t.Errorf("%s: %+v", name, f)
				}
			}
			wants(t, findings, "mode sandbox", "proc yes", "sys yes", "pivot-root yes", "mount-api yes", "seccomp-notify yes", "network-namespace yes")
		})
	}
}

// TestExamineScopes refuses Landlock, of which an old one is not told apart here.
func TestExamineScopes(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	id.Filter = map[int]uint32{unix.SYS_LANDLOCK_CREATE_RULESET: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	findings := examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute})
	wants(t, findings, "mode sandbox", "run yes", "landlock no", "landlock: can reach abstract Unix sockets", "landlock: CONFIG_SECURITY_LANDLOCK")
}

func TestExamineMissingDirectory(t *testing.T) {
	t.Parallel()
	dir := userDir(t)
	findings := examineAs(t, ordinaryUser(t), doctor.Options{Dir: dir + "/a/b", Limit: time.Minute})
	wants(t, findings, "cache-directory yes", "overlay yes")
	if left := entries(t, dir); left != nil {
		t.Errorf("it made %v", left)
	}
}

func TestExamineRestricted(t *testing.T) {
	t.Parallel()
	sandboxtest.NeedSeccomp(t)
	oneID := []string{"mode: a sandbox with one ID", "entering yes", "overlay yes", "run yes", "xattrs yes"}
	none := []string{"mode none", "entering no", "overlay unknown", "overlay: not tried", "run unknown", "cache-directory yes", "xattrs yes"}
	for _, test := range []struct {
		name   string
		change func(*sandboxtest.Identity)
		want   []string
	}{
		{
			"no_new_privs", func(id *sandboxtest.Identity) { id.NoNewPrivs = true },
			append([]string{"user-namespaces yes", "id-ranges no", "id-ranges: allowPrivilegeEscalation: true", "entering: no_new_privs"}, oneID...),
		},
		{
			"Docker's filter", func(id *sandboxtest.Identity) { id.Docker = true },
			append([]string{"user-namespaces no", "user-namespaces: a seccomp filter", "user-namespaces: seccompProfile", "id-ranges yes", "entering: a seccomp filter"}, none...),
		},
		{
			"no unshare", func(id *sandboxtest.Identity) { id.Filter = map[int]uint32{unix.SYS_UNSHARE: sandboxtest.Refused} },
			append([]string{"user-namespaces no", "user-namespaces: a seccomp filter"}, none...),
		},
		{
			"no mount", func(id *sandboxtest.Identity) { id.Filter = map[int]uint32{unix.SYS_MOUNT: sandboxtest.Refused} },
			append([]string{"user-namespaces yes", "id-ranges yes", "entering: a seccomp filter refuses mounts"}, none...),
		},
		{
			"no new mount calls", func(id *sandboxtest.Identity) {
				id.Filter = map[int]uint32{unix.SYS_OPEN_TREE: sandboxtest.Refused, unix.SYS_MOVE_MOUNT: sandboxtest.Refused}
			},
			[]string{"entering yes", "mounts yes", "overlay yes", "mount-api no", "mount-api: open_tree"},
		},
		{
			"no pivot_root", func(id *sandboxtest.Identity) { id.Filter = map[int]uint32{unix.SYS_PIVOT_ROOT: sandboxtest.Refused} },
			[]string{"run yes", "pivot-root no", "pivot-root: chrooted"},
		},
		{
			"no container", func(id *sandboxtest.Identity) { id.Filter = map[int]uint32{unix.SYS_SETHOSTNAME: sandboxtest.Refused} },
			[]string{"run no", "run: hostname", "overlay yes", "entering yes"},
		},
		{
			"a probe that breaks", func(id *sandboxtest.Identity) {
				id.Filter = map[int]uint32{unix.SYS_PIVOT_ROOT: unix.SECCOMP_RET_KILL_PROCESS}
			},
			[]string{"pivot-root unknown", "pivot-root: broke", "overlay yes", "mounts yes", "mount-api yes"},
		},
		{
			"hidden parts of /proc", func(id *sandboxtest.Identity) { id.Files["/proc/timer_list"] = "/dev/null" },
			[]string{"run yes", "run: sees the processes", "proc no", "proc: /proc/timer_list", "proc: procMount: Unmasked", "sys yes"},
		},
		{
			"no newuidmap", func(id *sandboxtest.Identity) { id.Files["/usr/bin/newuidmap"] = "/dev/null" },
			append([]string{"user-namespaces yes", "id-ranges no", "id-ranges: newuidmap"}, oneID...),
		},
		{
			"newuidmap without powers", func(id *sandboxtest.Identity) { id.Files["/usr/bin/newuidmap"] = "/bin/busybox" },
			append([]string{"id-ranges no", "id-ranges: chmod u+s /usr/bin/newuidmap", "entering: neither set-user-ID"}, oneID...),
		},
		{
			"nothing to write to", func(id *sandboxtest.Identity) { id.UID++ },
			[]string{"cache-directory no", "cache-directory: --cache-dir"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := ordinaryUser(t)
			test.change(id)
			wants(t, examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute}), test.want...)
		})
	}
}

func TestExamineHangingProbe(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	id.Filter = map[int]uint32{unix.SYS_PIVOT_ROOT: unix.SECCOMP_RET_USER_NOTIF}
	findings := examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: 10 * time.Second})
	wants(t, findings, "pivot-root unknown", "pivot-root: took longer than 10s")
}

func TestExamineUserWithoutRanges(t *testing.T) {
	t.Parallel()
	needEntered(t)
	id := sandboxtest.User(t, fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", sandboxtest.Name, sandboxtest.UID, sandboxtest.UID), "somebody:200000:65536\n")
	findings := examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute})
	wants(t, findings, "user-namespaces yes", "id-ranges no", "mode: a sandbox with one ID", "entering: no range", "seccomp-notify yes",
		"id-ranges: usermod --add-subuids 265536-331071 --add-subgids 265536-331071 "+sandboxtest.Name)
}

func TestExamineRootWithoutPowers(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	id.UID, id.LessPowers = 0, true
	findings := examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute})
	wants(t, findings, "user-namespaces yes", "mode sandbox", "entering yes", "overlay yes", "run yes")
	id.Docker = true
	findings = examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute})
	wants(t, findings, "user-namespaces no", "mode chroot", "entering no", "entering: a seccomp filter", "overlay unknown", "xattrs yes")
	if need := findings["entering"].Need; need != doctor.Optional {
		t.Errorf("entering is needed for %s, though a chroot works", need)
	}
	findings = examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute, Isolation: isolation.Namespaces})
	wants(t, findings, "entering no", "entering: CAP_SYS_ADMIN", "overlay unknown", "xattrs unknown")
	if need := findings["entering"].Need; need != doctor.ForAll {
		t.Errorf("entering is needed for %s, though nothing else is allowed", need)
	}
}

func TestExamineChroot(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	id.Chroot = userDir(t)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/tmp", "/usr", filepath.Dir(executable)} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		inside := filepath.Join(id.Chroot, dir)
		if err := os.MkdirAll(inside, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(dir, inside, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(inside, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
	}
	findings := examineAs(t, id, doctor.Options{Dir: userDir(t), Limit: time.Minute})
	wants(t, findings, "user-namespaces no", "user-namespaces: chroot", "mode none", "entering no", "entering: chroot")
	if need := findings["entering"].Need; need != doctor.ForRUN {
		t.Errorf("entering is needed for %s", need)
	}
}

// mounted mounts a file system on a directory of the test user.
func mounted(t *testing.T, kind, options string) string {
	t.Helper()
	dir := userDir(t)
	if err := unix.Mount(kind, dir, kind, 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chown(dir, sandboxtest.UID, sandboxtest.UID); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExamineFullDisk(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	dir := mounted(t, "tmpfs", "size=64k")
	f, err := os.Create(dir + "/large")
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	findings := examineAs(t, id, doctor.Options{Dir: dir, Limit: time.Minute})
	wants(t, findings, "cache-directory no", "cache-directory: is full", "space no", "space: bob cache prune", "entering yes")
}

func TestExamineOnOverlay(t *testing.T) {
	t.Parallel()
	id := ordinaryUser(t)
	below := userDir(t)
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(below, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := mounted(t, "overlay", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", below))
	findings := examineAs(t, id, doctor.Options{Dir: dir, Limit: time.Minute})
	wants(t, findings, "overlay no", "overlay: on overlay", "overlay: emptyDir", "run yes")
}

// TestExamineLimit runs itself again, in a user namespace whose limit it may change.
func TestExamineLimit(t *testing.T) {
	needEntered(t)
	if os.Getenv(limitedVariable) == "" {
		cmd := sandboxtest.Again(t, nil, "-test.count=1", "-test.run=^TestExamineLimit$")
		cmd.Env = append(cmd.Env, limitedVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	sandboxtest.LowerLimit(t)
	dir := t.TempDir()
	findings := examineAs(t, nil, doctor.Options{Dir: dir, Rootless: true, Limit: time.Minute})
	wants(t, findings, "user-namespaces no", "user-namespaces: sysctl -w user.max_user_namespaces", "entering no", "overlay unknown")
}
