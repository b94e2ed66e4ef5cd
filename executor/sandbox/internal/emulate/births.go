package emulate

import (
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// A birth is a file about to be made.
type birth struct {
	parent   int // descriptor of its directory
	name     string
	uid, gid uint32
	inherits bool // whether the directory hands down its group
}

// birth returns the file that the caller is about to make. It fails also for one
// that needs no owner other than the kernel's.
func (w *worker) birth(dir int32, path uint64, always bool) (*birth, error) {
	id, err := w.identity()
	if err != nil {
		return nil, err
	}
	b := &birth{}
	if b.parent, b.name, err = w.newName(dir, path); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := owners.Records.Fstat(b.parent, &st); err != nil {
		b.close()
		return nil, err
	}
	b.uid, b.gid = id.uid[filesID], id.gid[filesID]
	if st.Mode&unix.S_ISGID != 0 {
		b.inherits, b.gid = true, st.Gid
	}
	if !always && b.uid == 0 && b.gid == 0 {
		b.close()
		return nil, unix.ECANCELED
	}
	return b, nil
}

func (b *birth) close() { _ = unix.Close(b.parent) }

// born finishes a file that was made, whose owner could be recorded but for err, and
// answers the call with send. Whoever doesn't get the answer hasn't made the file.
func (w *worker) born(b *birth, err error, unlinkFlags int, send func() error) answer {
	if err == nil || err == unix.ENOTSUP { //nolint:errorlint // a bare error of the kernel
		err = send()
		if err == nil {
			return answer{sent: true}
		}
	}
	_ = unix.Unlinkat(b.parent, b.name, unlinkFlags)
	return refusal(err)
}

// openNew is an open(2) that makes a file if there is none.
func (w *worker) openNew(dir int32, path, flags, mode uint64) answer {
	if flags&(unix.O_PATH|unix.O_DIRECTORY) != 0 {
		return passed
	}
	b, err := w.birth(dir, path, false)
	if err != nil {
		return passed
	}
	defer b.close()
	permissions := w.permissions(mode)
	// Nothing is opened that is there already: it might be a file of the kernel's to
	// which it matters who opens it.
	fd, err := unix.Openat(b.parent, b.name, int(flags)|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, permissions&0o777)
	if err != nil {
		return passed
	}
	defer unix.Close(fd)
	err = owners.Records.Fset(fd, int(b.uid), int(b.gid), permissions)
	return w.born(b, err, 0, func() error { return w.sendDescriptor(fd, flags&unix.O_CLOEXEC != 0) })
}

func (w *worker) mkdir(dir int32, path, mode uint64) answer {
	b, err := w.birth(dir, path, false)
	if err != nil {
		return passed
	}
	defer b.close()
	permissions := w.permissions(mode) & 0o1777
	if err := unix.Mkdirat(b.parent, b.name, permissions&0o777); err != nil {
		return refusal(err)
	}
	if b.inherits {
		permissions |= unix.S_ISGID
	}
	fd, err := unix.Openat(b.parent, b.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = owners.Records.Fset(fd, int(b.uid), int(b.gid), permissions)
	}
	return w.born(b, err, unix.AT_REMOVEDIR, w.sendSuccess)
}

func (w *worker) mknod(dir int32, path, mode, dev uint64) answer {
	kind := uint32(mode) & unix.S_IFMT
	device := kind == unix.S_IFCHR || kind == unix.S_IFBLK
	if device {
		id, err := w.identity()
		// The character device 0:0 is the mark of a removed name, which overlayfs
		// refuses too.
		if err != nil || !id.privileged() || kind == unix.S_IFCHR && uint32(dev) == 0 {
			return answer{errno: unix.EPERM}
		}
	}
	b, err := w.birth(dir, path, device)
	if err != nil {
		return passed
	}
	defer b.close()
	err = owners.Records.Mknodat(b.parent, b.name, kind|w.permissions(mode), dev&(1<<32-1))
	if err == unix.ENOTSUP { //nolint:errorlint // a bare error of the kernel
		return w.born(b, unix.EPERM, 0, nil)
	}
	if err != nil {
		return refusal(err)
	}
	err = owners.Records.Fchownat(b.parent, b.name, int(b.uid), int(b.gid))
	return w.born(b, err, 0, w.sendSuccess)
}

func (w *worker) symlink(target uint64, dir int32, path uint64) answer {
	to, err := w.readString(target)
	if err != nil {
		return passed
	}
	b, err := w.birth(dir, path, false)
	if err != nil {
		return passed
	}
	defer b.close()
	if err := unix.Symlinkat(to, b.parent, b.name); err != nil {
		return refusal(err)
	}
	err = owners.Records.Fchownat(b.parent, b.name, int(b.uid), int(b.gid))
	return w.born(b, err, 0, w.sendSuccess)
}

// permissions returns the permissions of a new file for which the caller asks for mode.
func (w *worker) permissions(mode uint64) uint32 {
	return uint32(mode) & 0o7777 &^ w.umask()
}
