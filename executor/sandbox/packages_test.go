package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"github.com/bobbuild/bob/integration/harness"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
)

// The variables by which TestPackages tells TestInstall what to install into, and
// where to write what came out.
const (
	debianVariable = "SANDBOX_TEST_DEBIAN"
	listVariable   = "SANDBOX_TEST_LIST"
)

// TestPackages installs Debian packages with one ID and with many, and wants the same
// owners, modes and capabilities of both.
func TestPackages(t *testing.T) {
	t.Parallel()
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	ids := map[string]*sandboxtest.Identity{modeUser: ordinaryUser(t), modeOneID: withoutRanges(t)}
	archive, err := harness.DebianArchive(t.Context())
	if missing := new(harness.MissingError); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // of others than root, too
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	debian := filepath.Join(dir, "debian.tar")
	content, err := os.ReadFile(archive)
	if err == nil {
		err = os.WriteFile(debian, content, 0o644)
	}
	if err == nil {
		err = os.Chmod(debian, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string]string{}
	for mode, id := range ids {
		list := filepath.Join(dir, strings.ReplaceAll(mode, " ", "-"))
		cmd := again(t, mode, id, "-test.v", "-test.run=^TestInstall$")
		cmd.Env = append(cmd.Env, debianVariable+"="+debian, listVariable+"="+list)
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "--- SKIP: TestInstall") {
			t.Skipf("%s", out)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", mode, err, out)
		}
		b, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		lists[mode] = string(b)
	}
	for _, mode := range []string{modeUser, modeOneID} {
		other := modeUser
		if mode == modeUser {
			other = modeOneID
		}
		lines := map[string]bool{}
		for line := range strings.Lines(lists[other]) {
			lines[line] = true
		}
		for line := range strings.Lines(lists[mode]) {
			if !lines[line] {
				t.Errorf("only in mode %s: %s", mode, strings.TrimSpace(line))
			}
		}
	}
	for _, want := range []string{"104755 0:0  usr/bin/sudo\n", "102755 0:", " usr/bin/ssh-agent\n"} {
		if !strings.Contains(lists[modeOneID], want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestInstall is the part of TestPackages in one mode.
func TestInstall(t *testing.T) {
	debian, list := os.Getenv(debianVariable), os.Getenv(listVariable)
	if list == "" {
		t.Skip("a part of TestPackages")
	}
	r := newRunner(t)
	keeper := owners.Recording(r.Mode.OneID)
	dir := t.TempDir()
	for _, d := range []string{"lower", "upper", "work", "root"} {
		path := filepath.Join(dir, d)
		if err := errors.Join(os.Mkdir(path, 0o755), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	archive, err := os.Open(debian)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	if err := snapshot.Extract(t.Context(), filepath.Join(dir, "lower"), "/", archive, snapshot.ExtractOptions{Owners: keeper}); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,userxattr", dir)
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Skip(err)
	}
	defer func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("the root file system is still in use: %v", err)
		}
	}()
	run := func(script string) (string, error) {
		var out bytes.Buffer
		p := &sandbox.Process{Root: root, Args: []string{"sh", "-ec", script}, Stdout: &out, Stderr: &out, Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "DEBIAN_FRONTEND=noninteractive",
		}}
		err := r.Run(t.Context(), p)
		return out.String(), err
	}
	if out, err := run("apt-get update -qq"); err != nil {
		t.Skipf("no Debian archive: %v\n%s", err, out)
	}
	if out, err := run("apt-get install -y -qq --no-install-recommends sudo openssh-server"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := run(`useradd -m joe; echo "joe ALL=(ALL:ALL) NOPASSWD: ALL" > /etc/sudoers.d/joe; su joe -c 'touch ~/f; sudo -n id -u; sudo -n -u www-data -g mail id; sudo -n install -o news -g adm -m 2750 -d /srv/d'`)
	if want := "0\nuid=33(www-data) gid=8(mail) groups=8(mail),33(www-data)\n"; err != nil || out != want {
		t.Errorf("%v, output is %q, want %q", err, out, want)
	}
	listing, err := listOwners(root, keeper)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, listing, 0o644); err != nil {
		t.Fatal(err)
	}
}

// listOwners lists mode, owner, capabilities and name of all below root but /dev, whose
// devices a process with many IDs can't make.
func listOwners(root string, keeper owners.Keeper) ([]byte, error) {
	var b bytes.Buffer
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == "dev" {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := keeper.Fstatat(unix.AT_FDCWD, path, &st); err != nil {
			return err
		}
		capabilities := ""
		value := make([]byte, 64)
		if n, err := unix.Lgetxattr(path, "security.capability", value); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			capabilities = fmt.Sprintf("%x", value[4:min(n, 20)]) // without revision and root's ID
		}
		fmt.Fprintf(&b, "%o %d:%d %s %s\n", st.Mode, st.Uid, st.Gid, capabilities, name)
		return nil
	})
	return b.Bytes(), err
}
