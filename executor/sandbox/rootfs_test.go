package sandbox_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runc/libcontainer/seccomp"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
)

// newRoot returns a root file system with /bin/busybox, a few of its names and
// nothing else. The entries are made in it: a directory if the name ends in a
// slash, a symlink if the content starts with "->", else a file.
func newRoot(t testing.TB, entries ...[2]string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	for _, dir := range []string{"", "bin", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Skipf("%v: apt-get install busybox-static", err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "su"} {
		entries = append(entries, [2]string{"bin/" + name, "->busybox"})
	}
	for _, e := range entries {
		path := filepath.Join(root, e[0])
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		target, isLink := strings.CutPrefix(e[1], "->")
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(target, path)
		case strings.HasSuffix(e[0], "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte(e[1]), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		mode := fs.FileMode(0o644)
		switch {
		case err != nil || d.Type() == fs.ModeSymlink:
			return err
		case d.Name() == "tmp":
			mode = 0o777 | fs.ModeSticky
		case d.IsDir() || d.Name() == "busybox":
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// newRunner returns a runner whose state directory must be empty at the end.
func newRunner(t testing.TB) *sandbox.Runner {
	t.Helper()
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	dir := filepath.Join(t.TempDir(), "state")
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		for _, e := range left {
			path := filepath.Join(dir, e.Name())
			t.Errorf("left in the state directory: %s, which holds:\n%s", e.Name(), tree(t, path))
			if err := os.RemoveAll(path); err != nil {
				t.Log(err)
			}
		}
	})
	return &sandbox.Runner{Dir: dir, Mode: isolation.Mode{OneID: os.Getenv(modeVariable) == modeOneID}}
}

// shell returns a process that runs the script in the root file system.
func shell(root, script string) *sandbox.Process {
	return &sandbox.Process{Root: root, Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}}
}

// tree lists everything below dir with all that a layer would tell of it.
func tree(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("stat of %s: %T", path, info.Sys())
		}
		link := ""
		if d.Type() == fs.ModeSymlink {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		name, err := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %s %d:%d %d %s %s\n", name, info.Mode(), st.Uid, st.Gid, info.Size(), info.ModTime(), link)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// mountsBelow returns the mounts of this process below dir.
func mountsBelow(t testing.TB, dir string) []string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var below []string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir) {
			below = append(below, fields[4])
		}
	}
	return below
}
