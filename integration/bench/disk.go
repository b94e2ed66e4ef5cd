package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/bobbuild/bob/integration/harness"
)

// A disk is an empty directory: the root of an ext4 of its own where the machine allows
// that. A file system that is used again and again gets slower: ext4 does not reuse the
// inodes of a tree that was just removed and creates files several times slower for
// minutes.
type disk struct {
	dir, image string // image is "" if dir is nothing but a directory
	empty      int64  // bytes that the file system takes for itself
}

// diskSize is the most that a build may fill, in bytes.
const diskSize = 32 << 30

// newDisk makes a disk that the lab's user owns.
func newDisk(ctx context.Context, lab *harness.Lab) (*disk, error) {
	dir, err := lab.TempDir("disk")
	if err != nil || !canMount() {
		return &disk{dir: dir}, err
	}
	d := &disk{dir: dir, image: dir + ".ext4"}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		return nil, err
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image},
		{"mount", "-o", "loop,noinit_itable", d.image, d.dir},
	} {
		if err := sh(ctx, command...); err != nil {
			return nil, err
		}
	}
	if err := os.Remove(filepath.Join(d.dir, "lost+found")); err != nil {
		return nil, err
	}
	d.empty = d.used()
	return d, lab.User.Own(d.dir)
}

// used returns how many bytes of the disk are taken; 0 if it is nothing but a directory.
func (d *disk) used() int64 {
	var s syscall.Statfs_t
	if d.image == "" || syscall.Statfs(d.dir, &s) != nil {
		return 0
	}
	return int64(s.Blocks-s.Bfree)*s.Bsize - d.empty
}

// remove gives the disk's space back. A plain directory stays until the lab ends, since
// to remove it would slow down what comes next.
func (d *disk) remove(ctx context.Context) error {
	if d.image == "" {
		return nil
	}
	return errors.Join(sh(ctx, "umount", d.dir), os.Remove(d.image))
}

// canMount says whether this process is root in a mount namespace of its own: see
// separate.
func canMount() bool { return os.Getenv(separated) != "" }

// separated is set in a process that separate started.
const separated = "BOB_BENCH_SEPARATED"

// separate executes this program again in a mount namespace of its own if it may, so
// that no mount outlives it, and says whether it did.
func separate(ctx context.Context) (bool, error) {
	if os.Geteuid() != 0 || canMount() {
		return false, nil
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), separated+"=1")
	runtime.LockOSThread() // the signal comes when this thread ends
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return true, cmd.Run()
}

// giveHome has the lab's user have a home, in this mount namespace alone: newer versions
// of buildah look it up without asking $HOME, and want it to exist.
func giveHome(lab *harness.Lab) error {
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	home, err := lab.TempDir("home")
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(users), "\n")
	for i, line := range lines {
		if fields := strings.Split(line, ":"); fields[0] == lab.User.Name && len(fields) == 7 {
			fields[5] = home
			lines[i] = strings.Join(fields, ":")
		}
	}
	changed := filepath.Join(lab.Dir, "passwd")
	if err := os.WriteFile(changed, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return err
	}
	return syscall.Mount(changed, "/etc/passwd", "", syscall.MS_BIND, "")
}

func sh(ctx context.Context, command ...string) error {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w\n%s", command[0], err, out)
	}
	return nil
}
