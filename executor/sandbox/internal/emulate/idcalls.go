package emulate

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// maxGroups is NGROUPS_MAX.
const maxGroups = 65536

func setuid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setOne(&id.uid, uint32(r.args[0]), id.privileged())
	})
}

func setgid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setOne(&id.gid, uint32(r.args[0]), id.privileged())
	})
}

func setreuid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setTwo(&id.uid, uint32(r.args[0]), uint32(r.args[1]), id.privileged())
	})
}

func setregid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setTwo(&id.gid, uint32(r.args[0]), uint32(r.args[1]), id.privileged())
	})
}

func setresuid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setThree(&id.uid, threeIDs(r), id.privileged())
	})
}

func setresgid(w *worker, r *request) answer {
	return w.change(func(id *identity) unix.Errno {
		return setThree(&id.gid, threeIDs(r), id.privileged())
	})
}

func threeIDs(r *request) [3]uint32 {
	return [3]uint32{uint32(r.args[0]), uint32(r.args[1]), uint32(r.args[2])}
}

func setfsuid(w *worker, r *request) answer {
	var was uint32
	a := w.change(func(id *identity) unix.Errno {
		was = id.uid[filesID]
		setFiles(&id.uid, uint32(r.args[0]), id.privileged())
		return 0
	})
	a.value = int64(was)
	return a
}

func setfsgid(w *worker, r *request) answer {
	var was uint32
	a := w.change(func(id *identity) unix.Errno {
		was = id.gid[filesID]
		setFiles(&id.gid, uint32(r.args[0]), id.privileged())
		return 0
	})
	a.value = int64(was)
	return a
}

func setgroups(w *worker, r *request) answer {
	n := uint32(r.args[0])
	if n > maxGroups {
		return answer{errno: unix.EINVAL}
	}
	b := make([]byte, 4*n)
	if n > 0 {
		if _, err := w.read(r.args[1], b); err != nil {
			return answer{errno: unix.EFAULT}
		}
	}
	groups := make([]uint32, 0, n)
	for group := range slices.Chunk(b, 4) {
		groups = append(groups, binary.NativeEndian.Uint32(group))
	}
	return w.setGroups(groups)
}

func (w *worker) setGroups(groups []uint32) answer {
	return w.change(func(id *identity) unix.Errno {
		if !id.privileged() {
			return unix.EPERM
		}
		id.setGroups(groups)
		return 0
	})
}

func getgroups(w *worker, r *request) answer {
	return w.getGroups(r, func(groups []byte) []byte { return groups })
}

// getGroups is getgroups(2) of a caller to whom groups, of 4 bytes each, are what
// encode makes of them.
func (w *worker) getGroups(r *request, encode func(groups []byte) []byte) answer {
	id, err := w.identity()
	if err != nil {
		return passed
	}
	n := len(id.groups) / 4
	switch size := int32(r.args[0]); {
	case size == 0:
	case size < 0 || int(size) < n:
		return answer{errno: unix.EINVAL}
	default:
		if err := w.write(r.args[1], encode([]byte(id.groups))); err != nil {
			return answer{errno: unix.EFAULT}
		}
	}
	return answer{value: int64(n)}
}

// getOne returns a handler that returns one ID.
func getOne(which func(*identity) uint32) handler {
	return func(w *worker, _ *request) answer {
		id, err := w.identity()
		if err != nil {
			return passed
		}
		return answer{value: int64(which(&id))}
	}
}

// getThree returns a handler that stores the real, effective and saved ID.
func getThree(which func(*identity) *[4]uint32) handler {
	return func(w *worker, r *request) answer {
		id, err := w.identity()
		if err != nil {
			return passed
		}
		for i, n := range which(&id)[realID:filesID] {
			if err := w.write(r.args[i], binary.NativeEndian.AppendUint32(nil, n)); err != nil {
				return answer{errno: unix.EFAULT}
			}
		}
		return answer{}
	}
}

// keepCapabilities is prctl(PR_SET_KEEPCAPS), which the kernel does too.
func keepCapabilities(w *worker, r *request) answer {
	w.change(func(id *identity) unix.Errno {
		id.keep = r.args[1] == 1
		return 0
	})
	return passed
}

func execve(w *worker, r *request) answer { return w.execute(unix.AT_FDCWD, r.args[0], 0) }

func execveat(w *worker, r *request) answer {
	return w.execute(int32(r.args[0]), r.args[1], r.args[4])
}

// execute notices that the caller executes a program, if there is one.
func (w *worker) execute(dir int32, path, flags uint64) answer {
	id, err := w.identity()
	if err != nil || id.root() && !id.keep {
		return passed
	}
	fd, err := w.openAt(dir, path, flags)
	if err != nil {
		return passed
	}
	defer unix.Close(fd)
	id.forget()
	id.keep, id.kept, id.executes = false, false, !id.root()
	var st unix.Stat_t
	if id.executes && foreign(fd) && owners.Records.Fstat(fd, &st) == nil {
		id.emulated = true
		id.willBe(&st)
	}
	_ = w.ids.give(int(w.request.pid), id)
	return passed
}

// foreign reports whether a file, opened with O_PATH, is a program of another
// architecture, by the System V ABI, chapter 4, "ELF Header".
func foreign(fd int) bool {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return false
	}
	defer f.Close()
	var header [elf.EI_NIDENT + 4]byte
	if _, err := io.ReadFull(f, header[:]); err != nil || string(header[:len(elf.ELFMAG)]) != elf.ELFMAG {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if elf.Data(header[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	return elf.Machine(order.Uint16(header[elf.EI_NIDENT+2:])) != ownMachine
}

// The limit that holds identities is unlimited to the container, and can't be set:
// sudo gives its child the limits that it was started with.

func prlimit(w *worker, r *request) answer   { return w.unlimited(r.args[3]) }
func getrlimit(w *worker, r *request) answer { return w.unlimited(r.args[1]) }
func setrlimit(_ *worker, _ *request) answer { return answer{} }

func (w *worker) unlimited(buffer uint64) answer {
	if buffer == 0 {
		return answer{}
	}
	return answerOf(w.write(buffer, bytesOf(&unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})))
}

// identity returns the identity of the caller. A set-ID program changes it, which is
// noticed here: only for users that are not root, since root needs none.
func (w *worker) identity() (identity, error) {
	pid := int(w.request.pid)
	id, err := w.ids.of(pid)
	if err != nil || !id.executes {
		return id, err
	}
	if !id.emulated {
		fd, err := unix.Open(w.proc("exe"), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return id, err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := owners.Records.Fstat(fd, &st); err != nil || !w.valid() {
			return id, errors.Join(err, unix.ESRCH)
		}
		id.willBe(&st)
	}
	if uid := id.setID.uid; uid != unset {
		id.uid[effectiveID], id.uid[filesID] = uid, uid
	}
	if gid := id.setID.gid; gid != unset {
		id.gid[effectiveID], id.gid[filesID] = gid, gid
	}
	id.uid[savedID], id.gid[savedID] = id.uid[effectiveID], id.gid[effectiveID]
	id.forget()
	return id, w.ids.give(pid, id)
}

// change gives the caller what f makes of its identity, in which a member that was
// root and no longer is loses its powers.
func (w *worker) change(f func(*identity) unix.Errno) answer {
	id, err := w.identity()
	if err != nil {
		return passed // it is dying
	}
	was := id
	if errno := f(&id); errno != 0 {
		return answer{errno: errno}
	}
	if id == was {
		return answer{}
	}
	if was.root() {
		id.kept = was.keep && !id.root()
	}
	pid := int(w.request.pid)
	if !w.valid() {
		return passed
	}
	if err := w.ids.give(pid, id); err != nil {
		return answer{errno: unix.EAGAIN}
	}
	return answer{undo: func() { _ = w.ids.give(pid, was) }}
}
