package emulate

import (
	"golang.org/x/sys/unix"
)

// cwd is how the older calls look for relative paths.
const cwd = int32(unix.AT_FDCWD)

// architectureCalls returns the calls that newer architectures do without.
func architectureCalls() []call {
	return []call{
		{name: "chown", number: unix.SYS_CHOWN, handle: func(w *worker, r *request) answer {
			return w.chown(cwd, r.args[0], r.args[1], r.args[2], 0)
		}},
		{name: "lchown", number: unix.SYS_LCHOWN, handle: func(w *worker, r *request) answer {
			return w.chown(cwd, r.args[0], r.args[1], r.args[2], unix.AT_SYMLINK_NOFOLLOW)
		}},
		{name: "chmod", number: unix.SYS_CHMOD, handle: func(w *worker, r *request) answer {
			return w.chmod(cwd, r.args[0], r.args[1], 0)
		}},
		{name: "open", number: unix.SYS_OPEN, only: &condition{argument: 1, bit: unix.O_CREAT}, handle: func(w *worker, r *request) answer {
			return w.openNew(cwd, r.args[0], r.args[1], r.args[2])
		}},
		{name: "creat", number: unix.SYS_CREAT, handle: func(w *worker, r *request) answer {
			return w.openNew(cwd, r.args[0], unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, r.args[1])
		}},
		{name: "mkdir", number: unix.SYS_MKDIR, handle: func(w *worker, r *request) answer {
			return w.mkdir(cwd, r.args[0], r.args[1])
		}},
		{name: "mknod", number: unix.SYS_MKNOD, handle: func(w *worker, r *request) answer {
			return w.mknod(cwd, r.args[0], r.args[1], r.args[2])
		}},
		{name: "symlink", number: unix.SYS_SYMLINK, handle: func(w *worker, r *request) answer {
			return w.symlink(r.args[0], cwd, r.args[1])
		}},
		{name: "stat", number: unix.SYS_STAT, handle: func(w *worker, r *request) answer {
			return w.stat(cwd, r.args[0], r.args[1], 0)
		}},
		{name: "lstat", number: unix.SYS_LSTAT, handle: func(w *worker, r *request) answer {
			return w.stat(cwd, r.args[0], r.args[1], unix.AT_SYMLINK_NOFOLLOW)
		}},
	}
}

// olderDeviceCalls is deviceCalls for them.
func olderDeviceCalls() []call {
	return []call{{name: "mknod", number: unix.SYS_MKNOD, handle: func(w *worker, r *request) answer {
		return w.mknodDevice(cwd, r.args[0], r.args[1], r.args[2])
	}}}
}
