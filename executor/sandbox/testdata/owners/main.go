// Command owners makes the system calls that set and tell users, groups, owners and
// modes, in its working directory, and prints what they told. It is built for 32 bits, too.
package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 {
		return // it can be executed
	}
	runtime.LockOSThread()
	unix.Umask(0o022)
	files()
	directories()
	devices()
	narrow()
	identities()
}

// do ends the program if a call failed that must not.
func do(what string, err error) {
	if err != nil {
		fmt.Println(what, err)
		os.Exit(1)
	}
}

// show prints a status.
func show(name string, st *unix.Stat_t, err error) {
	do("stat "+name, err)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		st.Size = 0 // what it is depends on the file system
	}
	fmt.Printf("%s: %d:%d %o size %d\n", name, st.Uid, st.Gid, st.Mode, st.Size)
}

func files() {
	var st unix.Stat_t
	do("write", os.WriteFile("f", []byte("12345"), 0o644))
	do("chown", unix.Chown("f", 5, 65536))
	show("stat", &st, unix.Stat("f", &st))
	do("symlink", unix.Symlink("nowhere", "l"))
	do("lchown", unix.Lchown("l", 7, 8))
	show("lstat", &st, unix.Lstat("l", &st))
	fd, err := unix.Open("g", unix.O_CREAT|unix.O_RDWR, 0o666)
	do("open", err)
	do("fchown", unix.Fchown(fd, 9, 10))
	do("fchmod", unix.Fchmod(fd, 0o6755))
	show("fstat", &st, unix.Fstat(fd, &st))
	do("chmod", unix.Chmod("g", 0o640))
	do("fchownat", unix.Fchownat(unix.AT_FDCWD, "g", -1, 12, 0))
	show("fstatat", &st, unix.Fstatat(unix.AT_FDCWD, "g", &st, unix.AT_SYMLINK_NOFOLLOW))
	do("fchownat of a descriptor", unix.Fchownat(fd, "", 100000&0xffff, 13, unix.AT_EMPTY_PATH))
	var sx unix.Statx_t
	do("statx", unix.Statx(unix.AT_FDCWD, "g", 0, unix.STATX_BASIC_STATS, &sx))
	fmt.Printf("statx: %d:%d %o\n", sx.Uid, sx.Gid, sx.Mode)
}

func directories() {
	var st unix.Stat_t
	do("mkdir", unix.Mkdir("d", 0o777))
	do("chown", unix.Chown("d", 5, 6))
	do("fchmodat", unix.Fchmodat(unix.AT_FDCWD, "d", 0o2750, 0))
	show("directory", &st, unix.Stat("d", &st))
	do("mkdirat", unix.Mkdirat(unix.AT_FDCWD, "d/e", 0o777))
	show("directory in it", &st, unix.Stat("d/e", &st))
}

// devices makes some, which the test looks at.
func devices() {
	do("mknod", unix.Mknod("c", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
	do("mknodat", unix.Mknodat(unix.AT_FDCWD, "b", unix.S_IFBLK|0o660, int(unix.Mkdev(8, 1))))
	do("mknod of a fifo", unix.Mknod("p", unix.S_IFIFO|0o644, 0))
	fmt.Println("record:", unix.Setxattr("f", "user.containers.override_stat", []byte("0:0:0644:char-1-1"), 0) == nil)
}

func identities() {
	do("setgroups", unix.Setgroups([]int{3, 65536}))
	groups, err := unix.Getgroups()
	do("getgroups", err)
	do("setresgid", unix.Setresgid(1, 2, 3))
	do("setresuid", unix.Setresuid(4, 1000, 0))
	r, e, s := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	fmt.Println("IDs:", groups, r, e, s, rg, eg, sg, unix.Getuid(), unix.Geteuid(), unix.Getgid(), unix.Getegid())
	fmt.Println("setgroups of a user:", unix.Setgroups([]int{5}))
	fmt.Println("chown of a user:", unix.Chown("f", 1000, -1))
	do("mkdir", unix.Mkdir("/tmp/of-a-user", 0o755))
	var st unix.Stat_t
	show("of a user", &st, unix.Stat("/tmp/of-a-user", &st))
	do("setreuid", unix.Setreuid(-1, 0))
	fmt.Println("again:", unix.Geteuid())
}
