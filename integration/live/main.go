// Command live runs inside the images that FuzzLayers builds. It changes the
// file system and writes down what it sees of it:
//
//	live LIST OPERATION...
//
// lists the root file system to LIST.before, carries out the operations and
// lists it to LIST.after. An operation is one argument of words with spaces in
// between; one that can't be done is passed over, since the operations are
// random. What counts is that the lists and the image's layers agree.
package main

import (
	"encoding/gob"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string, operations []string) error {
	unix.Umask(0)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := save(name + ".before"); err != nil {
		return err
	}
	for _, o := range operations {
		if err := do(strings.Split(o, " ")); err != nil {
			fmt.Println(o+":", err)
		}
	}
	return save(name + ".after")
}

func save(name string) error {
	entries, err := list("/")
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := gob.NewEncoder(f).Encode(entries); err != nil {
		return err
	}
	return f.Close()
}

// do carries out one operation: its name, then the path, then what it needs.
func do(words []string) error {
	path, rest := words[1], words[2:]
	switch words[0] {
	case "mkdir":
		return unix.Mkdir(path, mode(rest[0]))
	case "mkdirs":
		return os.MkdirAll(path, os.FileMode(mode(rest[0])))
	case "write":
		return write(path, unix.O_TRUNC, 0, rest[0])
	case "append":
		return write(path, unix.O_APPEND, 0, rest[0])
	case "sparse":
		return write(path, 0, 1<<20, rest[0])
	case "chmod":
		return unix.Chmod(path, mode(rest[0]))
	case "chown":
		return os.Lchown(path, number(rest[0]), number(rest[1]))
	case "touch":
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{
			{Sec: int64(number(rest[0]))}, {Sec: int64(number(rest[0]))},
		}, unix.AT_SYMLINK_NOFOLLOW)
	case "rename":
		return unix.Rename(path, rest[0])
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, rest[0], unix.RENAME_EXCHANGE)
	case "remove":
		if _, err := os.Lstat(path); err != nil {
			return err // RemoveAll opens the parent, which as a fifo would wait for a writer
		}
		return os.RemoveAll(path)
	case "symlink":
		return unix.Symlink(rest[0], path)
	case "link":
		return link(path, rest[0])
	case "fifo":
		return unix.Mkfifo(path, mode(rest[0]))
	case "xattr":
		return unix.Lsetxattr(path, rest[0], []byte(rest[1]), 0)
	case "unxattr":
		return unix.Lremovexattr(path, rest[0])
	case "setcap": // version 2 of the attribute, cap_net_raw permitted and effective
		return unix.Lsetxattr(path, "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00"+strings.Repeat("\x00", 12)), 0)
	}
	return unix.ENOSYS
}

// link links path to name and keeps the inode open. An overlay may give the two
// names of a file that it has just copied up different inode numbers once the
// inode has left the kernel's cache: it knows of the lower file at path alone.
func link(path, name string) error {
	if err := unix.Link(path, name); err != nil {
		return err
	}
	_, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	return err
}

func write(path string, flag int, at int64, body string) error {
	if st := (unix.Stat_t{}); unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		return unix.ENXIO // opening it would wait for a reader
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o644)
	if err != nil {
		return err
	}
	if at > 0 {
		_, err = f.WriteAt([]byte(body), at)
	} else {
		_, err = f.WriteString(body)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

func mode(s string) uint32 {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0o755
	}
	return uint32(n)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
