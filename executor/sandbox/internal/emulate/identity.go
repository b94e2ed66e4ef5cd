package emulate

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// identity is what a process takes itself for.
type identity struct {
	uid, gid [4]uint32 // real, effective, saved, of the file system
	groups   string    // supplementary ones, 4 bytes each
	// keep is PR_SET_KEEPCAPS, kept that a user who is not root has the powers of
	// root by that.
	keep, kept bool
	// executes is that another program has been executed, whose set-ID bits count.
	executes bool
	// emulated is that an emulator executes that, which hides it: its set-ID bits, as
	// they were, count as uid and gid of setID, which may be unset.
	emulated bool
	setID    struct{ uid, gid uint32 }
}

// The members of identity.uid and gid.
const (
	realID = iota
	effectiveID
	savedID
	filesID
)

// limit holds the number of a process's identity as its soft value: it is inherited
// as an identity is, across fork and execve, and since Linux 2.4 it limits nothing.
const limit = unix.RLIMIT_LOCKS

// maxIdentities limits the memory that a container can take.
const maxIdentities = 1 << 16

// identities are all that the processes of a container ever had.
type identities struct {
	first uint64 // value of limit that stands for the first one

	mu      sync.RWMutex
	known   []identity
	numbers map[identity]uint64
}

// newIdentities returns identities of which the first, that of every process with
// another limit, is u's.
func newIdentities(u User) (*identities, error) {
	var own unix.Rlimit
	if err := unix.Getrlimit(limit, &own); err != nil {
		return nil, fmt.Errorf("read limit of file locks: %w", err)
	}
	if own.Max < 2*maxIdentities {
		return nil, fmt.Errorf("the limit of file locks is %d: raise it, with ulimit -x unlimited", own.Max)
	}
	id := identity{
		uid: [4]uint32{u.UID, u.UID, u.UID, u.UID},
		gid: [4]uint32{u.GID, u.GID, u.GID, u.GID},
	}
	id.setGroups(u.Groups)
	id.executes = !id.root()
	ids := &identities{first: own.Max - 2*maxIdentities, numbers: map[identity]uint64{}}
	ids.known = []identity{id}
	return ids, nil
}

// of returns the identity of the process.
func (ids *identities) of(pid int) (identity, error) {
	var l unix.Rlimit
	if err := unix.Prlimit(pid, limit, nil, &l); err != nil {
		return identity{}, err
	}
	ids.mu.RLock()
	defer ids.mu.RUnlock()
	if n := l.Cur - ids.first; l.Cur >= ids.first && n < uint64(len(ids.known)) {
		return ids.known[n], nil
	}
	return ids.known[0], nil
}

// give gives the process the identity.
func (ids *identities) give(pid int, id identity) error {
	n, err := ids.number(id)
	if err != nil {
		return err
	}
	var l unix.Rlimit
	if err := unix.Prlimit(pid, limit, nil, &l); err != nil {
		return err
	}
	l.Cur = ids.first + n
	return unix.Prlimit(pid, limit, &l, nil)
}

func (ids *identities) number(id identity) (uint64, error) {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	n, found := ids.numbers[id]
	if !found {
		n = uint64(len(ids.known))
		if n == maxIdentities {
			return 0, unix.EAGAIN
		}
		ids.known = append(ids.known, id)
		ids.numbers[id] = n
	}
	return n, nil
}

// root reports whether the effective user is root.
func (id *identity) root() bool { return id.uid[effectiveID] == 0 }

// privileged reports whether the process may change its groups and owners at will.
func (id *identity) privileged() bool { return id.root() || id.kept }

// setGroups sets the supplementary groups, which the kernel sorts.
func (id *identity) setGroups(groups []uint32) {
	var b []byte
	for _, g := range slices.Sorted(slices.Values(groups)) {
		b = binary.NativeEndian.AppendUint32(b, g)
	}
	id.groups = string(b)
}

// member reports whether the process is in the group.
func (id *identity) member(gid uint32) bool {
	if id.gid[filesID] == gid {
		return true
	}
	want := binary.NativeEndian.AppendUint32(nil, gid)
	for group := range slices.Chunk([]byte(id.groups), 4) {
		if string(group) == string(want) {
			return true
		}
	}
	return false
}

// willBe notes the set-ID bits of a program that is executed.
func (id *identity) willBe(st *unix.Stat_t) {
	id.setID.uid, id.setID.gid = unset, unset
	if st.Mode&unix.S_ISUID != 0 {
		id.setID.uid = st.Uid
	}
	if st.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP {
		id.setID.gid = st.Gid
	}
}

// forget forgets what was noted of a program.
func (id *identity) forget() {
	id.executes, id.emulated = false, false
	id.setID.uid, id.setID.gid = 0, 0
}

// unset in place of an ID leaves that as it is.
const unset = ^uint32(0)

// has reports whether one of the IDs is n.
func has(ids []uint32, n uint32) bool { return slices.Contains(ids, n) }

// setOne is setuid(2) or setgid(2).
func setOne(ids *[4]uint32, n uint32, privileged bool) unix.Errno {
	switch {
	case n == unset:
		return unix.EINVAL
	case privileged:
		*ids = [4]uint32{n, n, n, n}
	case n == ids[realID] || n == ids[savedID]:
		ids[effectiveID], ids[filesID] = n, n
	default:
		return unix.EPERM
	}
	return 0
}

// setTwo is setreuid(2) or setregid(2).
func setTwo(ids *[4]uint32, r, e uint32, privileged bool) unix.Errno {
	old := *ids
	if r != unset {
		if !privileged && !has(old[realID:savedID], r) {
			return unix.EPERM
		}
		ids[realID] = r
	}
	if e != unset {
		if !privileged && !has(old[realID:filesID], e) {
			return unix.EPERM
		}
		ids[effectiveID] = e
	}
	if r != unset || e != unset && e != old[realID] {
		ids[savedID] = ids[effectiveID]
	}
	ids[filesID] = ids[effectiveID]
	return 0
}

// setThree is setresuid(2) or setresgid(2).
func setThree(ids *[4]uint32, n [3]uint32, privileged bool) unix.Errno {
	old := *ids
	for i, v := range n {
		if v == unset {
			continue
		}
		if !privileged && !has(old[realID:filesID], v) {
			return unix.EPERM
		}
		ids[i] = v
	}
	ids[filesID] = ids[effectiveID]
	return 0
}

// setFiles is setfsuid(2) or setfsgid(2), which return the ID before.
func setFiles(ids *[4]uint32, n uint32, privileged bool) {
	if n != unset && (privileged || has(ids[:], n)) {
		ids[filesID] = n
	}
}

// User is whom the container's first process takes itself for.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}
