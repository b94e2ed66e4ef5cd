package chroot

import (
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// wipeLimit bounds how much of a file is overwritten: the command may have written
// to it, too.
const wipeLimit = 1 << 20

// wipe overwrites a file with zeros, and empties it.
func wipe(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, make([]byte, min(st.Size, wipeLimit)), 0); err != nil {
		return err
	}
	return unix.Ftruncate(fd, 0)
}

// closeOnExec has every descriptor but the standard ones closed when this process
// executes a program.
func closeOnExec() error {
	if unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11, or refused
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// makeDir makes a directory, whatever the umask.
func makeDir(path string, mode fs.FileMode) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// makeFile makes a file, whatever the umask.
func makeFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path, content, 0o600); err != nil { //nolint:gosec // in bob's private directory
		return err
	}
	return os.Chmod(path, mode)
}
