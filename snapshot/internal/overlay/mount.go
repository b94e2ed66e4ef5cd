// Package overlay lays layers over each other by a mount: the kernel's overlayfs, or
// fuse-overlayfs where the kernel allows FUSE only.
package overlay

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dirs are the directories that an overlay is made of.
type Dirs struct {
	Lower       []string // top first, at least one
	Upper, Work string   // both empty: read-only
	Target      string
}

// A Mount is an overlay of the kernel that is mounted at a directory.
type Mount struct {
	target string
	gone   bool // unmounted again
}

// Root returns the path of the merged file system.
func (m *Mount) Root() string { return m.target }

// Settle unmounts the overlay: its upper directory is the layer.
func (m *Mount) Settle(string) error {
	if m.gone {
		return nil
	}
	err := unmount(m.target)
	m.gone = err == nil
	return err
}

// Kept does nothing.
func (*Mount) Kept(string) {}

// End takes the overlay away at once, whoever uses it.
func (m *Mount) End() error {
	if m.gone {
		return nil
	}
	return detach(m.target)
}

const (
	// ClassicLayers is how many lower directories fit into the options of mount(2),
	// which are a page with its NUL. Kernels before Linux 6.5 take no more.
	ClassicLayers = 200
	// MaxLayers is how many lower directories the kernel's overlay takes (OVL_MAX_STACK).
	MaxLayers = 500
)

// New mounts o with userxattr: the overlay's own attributes are then in the
// user namespace, where an unprivileged process may write them.
//
// What is written is not flushed to the disk when it is unmounted ("volatile",
// Linux 5.10): that would have every step wait for the disk with the whole file
// system below the store. The work directory is never mounted again, which is
// what the kernel forbids then.
//
// Directories are given as /proc/self/fd/N, which is short and free of the
// characters that mean something in options. So mount(2), which is allowed where
// the newer calls are not, serves for about two hundred layers.
func New(o Dirs) (*Mount, error) {
	var err error
	if len(o.Lower) <= ClassicLayers {
		err = o.mountByOptions()
	}
	if len(o.Lower) > ClassicLayers || errors.Is(err, unix.EMFILE) {
		err = o.mountByLayer()
	}
	if err != nil {
		return nil, fmt.Errorf("mount overlay of %d layers at %s: %w%s", len(o.Lower), o.Target, err, Unsuitable(o.Target))
	}
	return &Mount{target: o.Target}, nil
}

// mountByOptions mounts o by mount(2).
func (o Dirs) mountByOptions() error {
	paths := append([]string{}, o.Lower...)
	if o.Upper != "" {
		paths = append(paths, o.Upper, o.Work)
	}
	var fds []string
	for _, p := range paths {
		fd, err := unix.Open(p, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: p, Err: err}
		}
		defer unix.Close(fd)
		fds = append(fds, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	options := "userxattr,lowerdir=" + strings.Join(fds[:len(o.Lower)], ":")
	if o.Upper != "" {
		options += ",volatile,upperdir=" + fds[len(fds)-2] + ",workdir=" + fds[len(fds)-1]
	}
	return unix.Mount("overlay", o.Target, "overlay", 0, options)
}

// Unsuitable says, for an error, if the file system of dir can't carry an overlay.
func Unsuitable(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	for magic, name := range map[int64]string{
		unix.OVERLAYFS_SUPER_MAGIC: "an overlay itself", unix.NFS_SUPER_MAGIC: "on NFS", unix.FUSE_SUPER_MAGIC: "on FUSE",
	} {
		if int64(st.Type) == magic { //nolint:unconvert // 32 bits wide on some architectures
			return ": the store is " + name + ": put it on a local disk or a tmpfs"
		}
	}
	return ""
}

// mountByLayer mounts o by the calls that take one layer at a time (Linux 6.5), of which
// one is open at a time.
func (o Dirs) mountByLayer() error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigSetFlag(fsfd, "userxattr"); err != nil {
		return configError(fsfd, "userxattr", err)
	}
	type option struct{ key, value string }
	var options []option
	for _, l := range o.Lower {
		options = append(options, option{"lowerdir+", l})
	}
	if o.Upper != "" {
		options = append(options, option{"upperdir", o.Upper}, option{"workdir", o.Work})
		if err := unix.FsconfigSetFlag(fsfd, "volatile"); err != nil {
			return configError(fsfd, "volatile", err)
		}
	}
	for _, p := range options {
		if err := setDirectory(fsfd, p.key, p.value); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return configError(fsfd, "create", err)
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, o.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

// setDirectory gives the file system being configured a directory.
func setDirectory(fsfd int, key, path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fsfd, key, "/proc/self/fd/"+strconv.Itoa(fd)); err != nil {
		return configError(fsfd, key, err)
	}
	return nil
}

// configError adds to err what the kernel wrote about it into the log of fsfd.
func configError(fsfd int, key string, err error) error {
	var log [1024]byte
	n, rerr := unix.Read(fsfd, log[:])
	if rerr != nil || n <= 0 {
		return fmt.Errorf("fsconfig %s: %w", key, err)
	}
	return fmt.Errorf("fsconfig %s: %w: %s", key, err, strings.TrimSpace(string(log[:n])))
}

// unmount unmounts target. A file still open below it keeps it busy; as processes
// that were just killed may need a moment to let go, it waits for about a second.
func unmount(target string) error {
	var err error
	for pause := time.Millisecond; pause < time.Second; pause *= 2 {
		err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(pause)
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: target, Err: err}
	}
	return nil
}

// detach takes target out of the tree of mounts at once, whoever uses it.
func detach(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
		return &os.PathError{Op: "detach", Path: target, Err: err}
	}
	return nil
}
