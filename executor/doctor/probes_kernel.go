package doctor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
	"github.com/bobbuild/bob/executor/sandbox/private"
)

// loadFilter loads a filter that allows everything into this thread.
func loadFilter(flags uintptr) error {
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	program := unix.SockFprog{Len: 1, Filter: &allow}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call takes an address
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

func trySeccomp(*probeOrder) outcome {
	if err := loadFilter(0); err != nil {
		return no("no seccomp filter can be loaded: "+err.Error(), "use a kernel built with CONFIG_SECCOMP_FILTER, or start the container with one that allows seccomp(2)")
	}
	return yes("")
}

func tryNotify(*probeOrder) outcome {
	if err := loadFilter(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER); err != nil {
		return no("a user without ranges of IDs can't have owners emulated: "+err.Error(), "")
	}
	return yes("")
}

func tryScopes(*probeOrder) outcome {
	if o := landlock.MissingScopes("a RUN with the machine's network can reach abstract Unix sockets of other processes"); o != nil {
		return refusal(o)
	}
	return yes("")
}

func tryNetwork(*probeOrder) outcome {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return no("socket: "+err.Error(), "")
	}
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return no(err.Error(), "")
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, loopback); err != nil {
		return no("the loopback interface of a new network namespace can't be set up: "+err.Error(), "")
	}
	l, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return no("the loopback interface of a new network namespace doesn't work: "+err.Error(), "")
	}
	_ = l.Close()
	return yes("")
}

// tryPrivate makes a private network.
func tryPrivate(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	n, err := private.Open(o.ctx, dir)
	if err != nil {
		return refusal(isolation.Reason(err))
	}
	if err := n.Close(); err != nil {
		return no(err.Error(), "")
	}
	return yes("by " + n.Program)
}

// tryCgroup makes a cgroup with every limit.
func tryCgroup(o *probeOrder) outcome {
	l, err := cgroup.NewLimiter(cgroup.Limits{Memory: 1 << 30, CPUs: 1, PIDs: 1000})
	if err != nil {
		return refusal(isolation.Reason(err))
	}
	g, err := l.Group(filepath.Base(o.Scratch))
	if err = errors.Join(err, g.Remove(), l.Close()); err != nil {
		return no(err.Error(), "")
	}
	return yes("for --memory, --cpus and --pids-limit")
}
