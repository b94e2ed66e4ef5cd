package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An entry is one path of a listing. Its fields are those of harness.Entry,
// into which the list is read; the harness itself would make this program big.
type entry struct {
	Name         string
	Type         byte // a tar.Type constant
	Mode         int64
	UID, GID     int
	Size         int64
	Sum          string
	Link         string
	Major, Minor int64
	ModTime      time.Time
	Xattrs       map[string]string
}

// list returns what is below root, sorted by path, without what is mounted there.
func list(root string) ([]entry, error) {
	var entries []entry
	first := map[uint64]string{} // inode → the first name of a file with several
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch path {
		case root:
			return nil
		case "/dev", "/proc", "/sys", "/bin", "/sbin", "/usr":
			return fs.SkipDir
		}
		e, inode, err := describe(path)
		if err != nil {
			return err
		}
		if target, seen := first[inode]; seen && !d.IsDir() {
			e = entry{Name: e.Name, Type: tar.TypeLink, Link: target}
		}
		if !d.IsDir() && e.Type != tar.TypeLink {
			first[inode] = e.Name
		}
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

var types = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFIFO: tar.TypeFifo, unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock,
}

func describe(path string) (entry, uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return entry{}, 0, err
	}
	e := entry{
		Name: strings.TrimPrefix(path, "/"), Type: types[st.Mode&unix.S_IFMT], Mode: int64(st.Mode & 0o7777),
		UID: int(st.Uid), GID: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Xattrs: map[string]string{},
	}
	var err error
	switch e.Type {
	case tar.TypeReg:
		e.Size = st.Size
		e.Sum, err = sum(path)
	case tar.TypeSymlink:
		e.Link, err = os.Readlink(path)
	case tar.TypeChar, tar.TypeBlock:
		e.Major, e.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if err != nil {
		return entry{}, 0, err
	}
	return e, st.Ino, attributes(path, e.Xattrs)
}

func sum(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// attributes lists those that a layer carries: as in BuildKit not what users
// attach.
func attributes(path string, into map[string]string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return err
	}
	for name := range strings.FieldsFuncSeq(string(names[:n]), func(r rune) bool { return r == 0 }) {
		if strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return err
		}
		into[name] = string(value[:n])
	}
	return nil
}
