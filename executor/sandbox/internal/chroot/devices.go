package chroot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// device is one of those that every container has, all character devices.
type device struct {
	name   string
	number uint64
}

var devices = [...]device{
	{"null", unix.Mkdev(1, 3)},
	{"zero", unix.Mkdev(1, 5)},
	{"full", unix.Mkdev(1, 7)},
	{"random", unix.Mkdev(1, 8)},
	{"urandom", unix.Mkdev(1, 9)},
	{"tty", unix.Mkdev(5, 0)},
}

// deviceLinks are the links of a container's /dev. Without /proc they lead nowhere:
// what opens one gets an error, where a file in its place would swallow the output.
var deviceLinks = [...]struct{ name, target string }{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
}

// makeDevices makes the /dev of a command. Where devices can't be made or opened, as
// on a file system mounted with nodev, an empty file takes the place of null. The others
// are left out: a file can't be endless or random.
func makeDevices(dir string) error {
	if err := makeDir(dir, 0o755); err != nil {
		return err
	}
	if err := makeDir(filepath.Join(dir, "shm"), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	for _, link := range deviceLinks {
		if err := os.Symlink(link.target, filepath.Join(dir, link.name)); err != nil {
			return err
		}
	}
	for _, d := range devices {
		path := filepath.Join(dir, d.name)
		err := makeDevice(path, d)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			err = nil
			if d.name == "null" {
				err = makeFile(path, nil, 0o666)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// makeDevice makes a device, unless it can't be opened afterwards.
func makeDevice(path string, d device) error {
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(d.number)); err != nil {
		return &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		_ = unix.Close(fd)
	case !errors.Is(err, unix.ENXIO): // no terminal
		return errors.Join(&os.PathError{Op: "open", Path: path, Err: err}, os.Remove(path))
	}
	return os.Chmod(path, 0o666) //nolint:gosec // as everywhere
}
