package emulate

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHostileCalls has a thread name memory, directories and paths that no well-meaning
// program names. The worker must read nothing that isn't the caller's, and open nothing by
// the kernel's own links, by which the files of others can be reached.
func TestHostileCalls(t *testing.T) {
	t.Parallel()
	tr := startTraced(t, true)
	file, err := os.Open(filepath.Join(tr.root, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	outside, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outside.Close() }()
	const (
		cwd     = unix.AT_FDCWD
		invalid = 1 << 20 // more than a process has
	)
	below, self := "/proc/self/fd/"+strconv.Itoa(int(outside.Fd())), "/proc/"+strconv.Itoa(os.Getpid())
	for name, test := range map[string]struct {
		dir     int
		path    string
		address uintptr // in place of that of the path
		read    unix.Errno
		open    unix.Errno
	}{
		"no address":                     {dir: cwd, address: 0, read: unix.EFAULT, open: unix.EFAULT},
		"the first page":                 {dir: cwd, address: 1, read: unix.EFAULT, open: unix.EFAULT},
		"behind the memory":              {dir: cwd, address: tr.address() + mapped, read: unix.EFAULT, open: unix.EFAULT},
		"the kernel's memory":            {dir: cwd, address: ^uintptr(0) - pageSize, read: unix.EFAULT, open: unix.EFAULT},
		"the last address":               {dir: cwd, address: ^uintptr(0), read: unix.EFAULT, open: unix.EFAULT},
		"a closed descriptor":            {dir: invalid, path: "f", open: unix.EBADF},
		"a negative descriptor":          {dir: -7, path: "f", open: unix.EBADF},
		"a file for a directory":         {dir: int(file.Fd()), path: "f", open: unix.ENOTDIR},
		"absolute, with a bad directory": {dir: invalid, path: "/f"},
		"above the root":                 {dir: cwd, path: "/../../../../f"},
		"by a link above the root":       {dir: cwd, path: "/out/f"},
		"the root of another process":    {dir: cwd, path: "/proc/" + strconv.Itoa(os.Getppid()) + "/root/f", open: unix.ELOOP},
		"the own root":                   {dir: cwd, path: self + "/root/f", open: unix.ELOOP},
		"the own directory":              {dir: cwd, path: self + "/cwd/f", open: unix.ELOOP},
		"an open directory":              {dir: cwd, path: below + "/f", open: unix.ELOOP},
		"above an open directory":        {dir: cwd, path: below + "/../f", open: unix.ELOOP},
		"relative to the own root":       {dir: cwd, path: "../proc/self/root/f", open: unix.ELOOP},
		"of a thread":                    {dir: cwd, path: self + "/task/" + strconv.Itoa(os.Getpid()) + "/root/f", open: unix.ELOOP},
		"a link to the kernel's link":    {dir: cwd, path: "/magic/f", open: unix.ELOOP},
		"a circle":                       {dir: cwd, path: "/loop/f", open: unix.ELOOP},
		"no name":                        {dir: cwd, path: "", open: unix.EEXIST},
		"the directory itself":           {dir: cwd, path: "a/..", open: unix.EEXIST},
		"a byte too long":                {dir: cwd, path: strings.Repeat("/", unix.PathMax), read: unix.ENAMETOOLONG, open: unix.ENAMETOOLONG},
		"as long as can be":              {dir: cwd, path: strings.Repeat("/", unix.PathMax-2) + "f"},
	} {
		t.Run(name, func(t *testing.T) {
			address := test.address
			if test.path != "" || name == "no name" {
				copy(tr.memory, test.path+"\x00")
				address = tr.address()
			}
			s, errno := tr.ask(test.dir, address)
			if s.errOpen == nil {
				defer unix.Close(s.parent)
			}
			if errno != unix.EPERM {
				t.Errorf("the call wasn't notified of: %v", errno)
			}
			if !is(s.errRead, test.read) || test.read == 0 && s.text != test.path {
				t.Errorf("read %q, %v, want %q, %v", s.text, s.errRead, test.path, test.read)
			}
			if !is(s.errOpen, test.open) {
				t.Errorf("opening failed with %v, want %v", s.errOpen, test.open)
			}
			if s.errOpen == nil {
				tr.within(t, s.parent)
			}
		})
	}
}

// is reports whether err is the kernel's errno, nil for 0.
func is(err error, errno unix.Errno) bool {
	if errno == 0 {
		return err == nil
	}
	return errors.Is(err, errno)
}

// within wants the descriptor to be of a directory in the thread's root.
func (tr *traced) within(t *testing.T, fd int) {
	t.Helper()
	place, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil || place != tr.root && !strings.HasPrefix(place, tr.root+"/") {
		t.Errorf("it leads to %s, %v", place, err)
	}
}

// TestRacedPath has a directory of a path be now itself and now a link that leads out of the
// root, while the worker opens it.
func TestRacedPath(t *testing.T) {
	t.Parallel()
	tr := startTraced(t, true)
	inRoot := func(name string) string { return filepath.Join(tr.root, name) }
	if err := os.Symlink("../../../../../../../../tmp", inRoot("a/swap")); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, inRoot("a/swap"), unix.AT_FDCWD, inRoot("a/b"), unix.RENAME_EXCHANGE); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 2000 {
		for _, path := range []string{"b/../f", "/a/b/../f", "b/f", "../a/b/../../f"} {
			copy(tr.memory, path+"\x00")
			s, _ := tr.ask(unix.AT_FDCWD, tr.address())
			if s.errOpen == nil {
				tr.within(t, s.parent)
				_ = unix.Close(s.parent)
			}
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}
