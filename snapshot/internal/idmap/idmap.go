// Package idmap knows the user and group IDs that exist in the user namespace of this
// process.
package idmap

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/bobbuild/bob/snapshot/owners"
)

const (
	uidMapFile = "/proc/self/uid_map"
	gidMapFile = "/proc/self/gid_map"
)

// Fingerprint names the ID mapping of this process's user namespace.
func Fingerprint() (string, error) {
	h := sha256.New()
	for _, name := range []string{uidMapFile, gidMapFile} {
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		for line := range bytes.Lines(b) {
			h.Write(bytes.Join(bytes.Fields(line), []byte{' '}))
			h.Write([]byte{'\n'})
		}
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// idRange is a run of IDs that exist in this user namespace.
type idRange struct{ first, count int64 }

// idRanges are the runs of one map file, adjacent ones joined.
type idRanges []idRange

func readRanges(file string) (idRanges, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rs idRanges
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		var r idRange
		var outside int64
		if _, err := fmt.Sscan(sc.Text(), &r.first, &outside, &r.count); err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		if n := len(rs); n > 0 && rs[n-1].first+rs[n-1].count == r.first {
			rs[n-1].count += r.count
			continue
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func (rs idRanges) contain(id int) bool {
	for _, r := range rs {
		if int64(id) >= r.first && int64(id)-r.first < r.count {
			return true
		}
	}
	return false
}

func (rs idRanges) String() string {
	var s []string
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%d-%d", r.first, r.first+r.count-1))
	}
	return strings.Join(s, ", ")
}

// HasUser reports whether the user namespace has the user, or its map can't be read.
func HasUser(uid int) bool {
	known, err := readRanges(uidMapFile)
	return err != nil || known.contain(uid)
}

// HasGroup is HasUser for a group.
func HasGroup(gid int) bool {
	known, err := readRanges(gidMapFile)
	return err != nil || known.contain(gid)
}

// An unmappedError says that a file wants an owner that the user namespace lacks.
type unmappedError struct {
	what   string // "user" or "group"
	id     int
	ranges idRanges
	file   string // where to widen
	err    error
}

func (e *unmappedError) Error() string {
	return fmt.Sprintf("%s ID %d is outside the IDs available here (%s): widen the range of this user in %s: %v",
		e.what, e.id, e.ranges, e.file, e.err)
}

func (e *unmappedError) Unwrap() error { return e.err }

// Explain turns the error of giving a file the owner uid and gid into one that
// says which of them the user namespace doesn't have, if that is the cause.
func Explain(err error, uid, gid int, keeper owners.Keeper) error {
	if keeper == owners.Records {
		return fmt.Errorf("record owner %d:%d: %w", uid, gid, err)
	}
	if uid == owners.Unchanged && gid == owners.Unchanged {
		return os.NewSyscallError("fchmod", err)
	}
	for _, k := range []struct {
		what, mapFile, subFile string
		id                     int
	}{
		{"user", uidMapFile, "/etc/subuid", uid},
		{"group", gidMapFile, "/etc/subgid", gid},
	} {
		rs, rerr := readRanges(k.mapFile)
		if rerr == nil && !rs.contain(k.id) {
			return &unmappedError{k.what, k.id, rs, k.subFile, err}
		}
	}
	return fmt.Errorf("chown to %d:%d: %w", uid, gid, err)
}
