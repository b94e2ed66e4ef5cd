package integration_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// The emulator that is Debian's for the architecture of the tests, and its magic and
// mask as they are in its package's binfmt.d/qemu-aarch64.conf.
const (
	emulator = "qemu-aarch64-static"
	register = `:test:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:`
)

// withoutEmulators is a PATH without emulators.
func (b *workbench) withoutEmulators() string {
	return b.path("newuidmap", "newgidmap", "mount", "sh")
}

// path makes a PATH on which there are these programs alone.
func (b *workbench) path(programs ...string) string {
	b.t.Helper()
	bin, err := os.MkdirTemp(b.dir, "bin-")
	check(b.t, err)
	check(b.t, os.Chmod(bin, 0o755))
	for _, program := range programs {
		path, err := exec.LookPath(program)
		check(b.t, err)
		check(b.t, os.Symlink(path, filepath.Join(bin, program)))
	}
	return "PATH=" + bin
}

// newForeign is a workbench whose Dockerfiles find an image for amd64 and arm64, $BASE.
func newForeign(t *testing.T, dockerfile string) *workbench {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("these tests take arm64 for another architecture, and amd64 for this one")
	}
	check(t, harness.Need(emulator))
	b := newWorkbench(t)
	ctx := context.WithoutCancel(t.Context())
	native, err := harness.Busybox(ctx)
	check(t, err)
	foreign, err := harness.ForeignBusybox(ctx)
	check(t, err)
	base := b.registry.Prefix + "/" + strings.ToLower(strings.Map(repository, t.Name())) + "-base:1"
	_, err = b.registry.PushIndex(ctx, base, map[string]*harness.BaseImage{"linux/amd64": native, "linux/arm64": foreign})
	check(t, err)
	b.write(map[string]string{"context/Dockerfile": strings.ReplaceAll(dockerfile, "$BASE", base)})
	return b
}

// foreignDockerfile tells of programs where they run, by which name, as whom and whether
// set-user-ID programs have their rights.
const foreignDockerfile = `FROM --platform=$BUILDPLATFORM $BASE AS native
RUN uname -m > /native
FROM $BASE
RUN uname -m > /arch && rm /bin/su && cp /bin/busybox /bin/su && chmod 4755 /bin/su && sed -i s/^root:x:/root::/ /etc/passwd
USER alice
WORKDIR /home/alice
RUN (uname -m; id -un; /bin/su -c "id -u"; ls -l /proc/sys/fs/binfmt_misc/) > told
COPY --from=native /native /
`

// wantForeign fails the test unless the tree in dir is what foreignDockerfile makes
// for the machine.
func (b *workbench) wantForeign(dir, machine string) {
	b.t.Helper()
	for name, want := range map[string]string{
		"native": "x86_64\n", "arch": machine + "\n",
		"home/alice/told": machine + "\nalice\n0\ntotal 0\n",
	} {
		got, err := os.ReadFile(filepath.Join(b.dir, dir, name))
		if err != nil || string(got) != want {
			b.t.Errorf("%v, %s/%s is %q, want %q", err, dir, name, got, want)
		}
	}
}

// TestForeignRun has commands of another architecture run, beside those of this
// machine, by an emulator that nothing but bob knows of.
func TestForeignRun(t *testing.T) {
	t.Parallel()
	b := newForeign(t, foreignDockerfile)
	before := registered(t)
	result := b.bob("build", "--progress=plain", "--platform=linux/amd64,linux/arm64", "-t", b.ref, "--push", "-o", "type=local,dest=out", "context")
	if result.Code != 0 {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	b.wantForeign("out/linux_amd64", "x86_64")
	b.wantForeign("out/linux_arm64", "aarch64")
	runs := regexp.MustCompile(`(?m)^#\d+ \[.*\] RUN uname -m > /native$`).FindAllString(result.Stderr, -1)
	slices.Sort(runs)
	if runs = slices.Compact(runs); len(runs) != 1 {
		t.Errorf("the native stage ran more than once: %q", runs)
	}
	if after := registered(t); !slices.Equal(before, after) {
		t.Errorf("registered on the machine is %q, was %q", after, before)
	}
	check(t, exec.CommandContext(t.Context(), "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--src-tls-verify=false", "docker://"+b.ref, "dir:"+t.TempDir()).Run())
}

// TestForeignOneID has an emulator run as the one user whose system calls bob answers.
func TestForeignOneID(t *testing.T) {
	t.Parallel()
	b := newForeign(t, foreignDockerfile)
	result := b.run(harness.Invocation{
		Args: []string{"build", "--progress=plain", "--platform=linux/arm64", "-o", "type=local,dest=out", "context"},
		Env:  []string{b.path(emulator)},
	})
	if result.Code != 0 || !matches("one ID", result.Stderr) {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	b.wantForeign("out", "aarch64")
}

// TestForeignEmulator names the emulator, which isn't in PATH.
func TestForeignEmulator(t *testing.T) {
	t.Parallel()
	b := newForeign(t, foreignDockerfile)
	path, err := exec.LookPath(emulator)
	check(t, err)
	for name, i := range map[string]harness.Invocation{
		"flag":     {Args: []string{"--emulator=aarch64=" + path}},
		"variable": {Env: []string{"BOB_EMULATOR=s390x=/bin/sh\nlinux/arm64=" + path}},
	} {
		i.Args = append([]string{"build", "--platform=linux/arm64", "-o", "type=local,dest=" + name}, append(i.Args, "context")...)
		i.Env = append(i.Env, b.withoutEmulators())
		i.Cache = b.dir + "/cache-" + name
		if result := b.run(i); result.Code != 0 {
			t.Fatalf("%s: exit code %d\n%s", name, result.Code, result.Stderr)
		}
		b.wantForeign(name, "aarch64")
	}
}

// TestForeignMissing lacks an emulator: nothing is run, and nothing pushed, unless all
// that is run is for this machine.
func TestForeignMissing(t *testing.T) {
	t.Parallel()
	b := newForeign(t, foreignDockerfile)
	if len(registered(t)) > 0 {
		t.Skip("the machine may have an emulator registered")
	}
	i := harness.Invocation{
		Args: []string{"build", "--progress=plain", "--platform=linux/amd64,linux/arm64", "-t", b.ref, "context"},
		Env:  []string{b.withoutEmulators()},
	}
	result := b.run(i)
	if result.Code != 1 || !matches(`ERROR: context/Dockerfile:4: RUN: .*arm64.*--emulator arm64=`, result.Stderr) || matches(`(?m)^#\d`, result.Stderr) {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
	b.wantAbsent()
	b.write(map[string]string{"context/Dockerfile": strings.Replace(b.read("context/Dockerfile"), "\nFROM ", "\nFROM scratch\nCOPY --from=native /native /\nFROM scratch AS unused\nFROM ", 1)})
	i.Args = append(i.Args, "--target=1")
	if result := b.run(i); result.Code != 0 {
		t.Errorf("exit code %d although nothing is run by an emulator\n%s", result.Code, result.Stderr)
	}
}

// read returns a file of the workbench.
func (b *workbench) read(name string) string {
	b.t.Helper()
	body, err := os.ReadFile(filepath.Join(b.dir, name))
	check(b.t, err)
	return string(body)
}

// TestForeignOnbuild has a base image bring a command of another architecture.
func TestForeignOnbuild(t *testing.T) {
	t.Parallel()
	b := newForeign(t, "FROM $BASE\n")
	foreign, err := harness.ForeignBusybox(t.Context())
	check(t, err)
	foreign.Config.OnBuild = []string{"RUN uname -m > /arch"}
	base := b.ref + "-onbuild"
	_, err = b.registry.PushIndex(t.Context(), base, map[string]*harness.BaseImage{"linux/arm64": foreign})
	check(t, err)
	b.write(map[string]string{"context/Dockerfile": "FROM " + base + "\n"})
	args := []string{"build", "--progress=plain", "--platform=linux/arm64", "-o", "type=local,dest=out", "context"}
	if len(registered(t)) == 0 {
		result := b.run(harness.Invocation{Args: args, Env: []string{b.withoutEmulators()}})
		if result.Code != 1 || !matches(`ERROR: context/Dockerfile:1: .*RUN uname -m > /arch.*--emulator arm64=`, result.Stderr) {
			t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
		}
	}
	if result := b.bob(args...); result.Code != 0 || b.read("out/arch") != "aarch64\n" {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
}

// TestForeignOfMachine takes what a machine has registered, with namespaces and in a
// chroot. The machine is a user namespace.
func TestForeignOfMachine(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("unshare", "mount"))
	b := newForeign(t, "FROM $BASE\nRUN uname -m > /arch\n")
	path, err := exec.LookPath(emulator)
	check(t, err)
	bob, err := lab.Bob()
	check(t, err)
	b.write(map[string]string{"machine/": "", "on-machine.sh": "set -e\nmount -t binfmt_misc none machine\n" +
		"printf '" + strings.ReplaceAll(register, `\`, `\\`) + path + ":POCF' > machine/register\nexec \"$@\"\n"})
	for _, isolation := range []string{"sandbox", "chroot"} {
		t.Run(isolation, func(t *testing.T) {
			b := &workbench{t: t, dir: b.dir, registry: b.registry, ref: b.ref}
			result := b.run(harness.Invocation{
				Program: "/usr/bin/unshare",
				Args: []string{
					"--map-root-user", "--map-auto", "--mount", "sh", "on-machine.sh", bob, "build", "--progress=plain",
					"--isolation=" + isolation, "--platform=linux/arm64", "-o", "type=local,dest=" + isolation, "context",
				},
				Env: []string{b.withoutEmulators()}, Cache: b.dir + "/cache-" + isolation,
			})
			if result.Code != 0 || b.read(isolation+"/arch") != "aarch64\n" {
				t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
			}
		})
	}
}

// TestForeignOfRoot wants root to register nothing on the machine, but with --rootless
// to build.
func TestForeignOfRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can register on the machine")
	}
	before := registered(t)
	if len(before) > 0 {
		t.Skip("the machine may have an emulator registered")
	}
	b := newForeign(t, foreignDockerfile)
	bob, err := lab.Bob()
	check(t, err)
	for _, rootless := range []bool{false, true} {
		args := []string{"build", "--progress=plain", "--platform=linux/arm64", "-o", "type=local,dest=out", "context"}
		if rootless {
			args = append(args, "--rootless")
		}
		cmd := exec.CommandContext(t.Context(), bob, args...)
		cmd.Dir = b.dir
		cmd.Env = []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH"), "BOB_CACHE_DIR=" + filepath.Join(b.dir, "cache-root"), "BOB_CACHE_SYNC=false"}
		out, err := cmd.CombinedOutput()
		switch {
		case rootless && err == nil:
			b.wantForeign("out", "aarch64")
		case rootless, err == nil, !matches(`Dockerfile:4: RUN: .*--rootless`, string(out)):
			t.Errorf("rootless: %v: %v\n%s", rootless, err, out)
		}
		if after := registered(t); !slices.Equal(before, after) {
			t.Errorf("registered on the machine is %q, was %q", after, before)
		}
	}
}

// registered returns what is registered in the machine's binfmt_misc. As root it looks
// there in a mount namespace of its own, since it may be mounted nowhere.
func registered(t *testing.T) (names []string) {
	t.Helper()
	const list = "/proc/sys/fs/binfmt_misc"
	cmd := exec.CommandContext(t.Context(), "ls", list)
	if os.Geteuid() == 0 {
		cmd = exec.CommandContext(t.Context(), "sh", "-c", "mount -t binfmt_misc -o ro none "+list+"; ls "+list)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	out, err := cmd.Output()
	check(t, err)
	return slices.DeleteFunc(strings.Fields(string(out)), func(name string) bool { return name == "register" || name == "status" })
}
