package sandbox

import (
	"fmt"
	"os"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// Ulimit is a resource limit, getrlimit(2).
type Ulimit struct {
	// Name is the resource as in `docker build --ulimit`: "nofile", "core"…
	Name string
	// Soft and Hard are in the unit of the resource; ^uint64(0) is no limit.
	Soft, Hard uint64
}

// rlimitTypes are the resources by the names of Docker's command line.
var rlimitTypes = map[string]int{
	"as":         unix.RLIMIT_AS,
	"core":       unix.RLIMIT_CORE,
	"cpu":        unix.RLIMIT_CPU,
	"data":       unix.RLIMIT_DATA,
	"fsize":      unix.RLIMIT_FSIZE,
	"locks":      unix.RLIMIT_LOCKS,
	"memlock":    unix.RLIMIT_MEMLOCK,
	"msgqueue":   unix.RLIMIT_MSGQUEUE,
	"nice":       unix.RLIMIT_NICE,
	"nofile":     unix.RLIMIT_NOFILE,
	"nproc":      unix.RLIMIT_NPROC,
	"rss":        unix.RLIMIT_RSS,
	"rtprio":     unix.RLIMIT_RTPRIO,
	"rttime":     unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING,
	"stack":      unix.RLIMIT_STACK,
}

// rlimits converts limits. In a user namespace a hard limit can't be raised;
// that is checked here, where the error can say so.
func rlimits(limits []Ulimit) ([]configs.Rlimit, error) {
	converted := make([]configs.Rlimit, 0, len(limits))
	for _, l := range limits {
		resource, known := rlimitTypes[l.Name]
		if !known {
			return nil, fmt.Errorf("ulimit %s: unknown resource", l.Name)
		}
		if l.Soft > l.Hard {
			return nil, fmt.Errorf("ulimit %s: soft limit %d is above hard limit %d", l.Name, l.Soft, l.Hard)
		}
		var current unix.Rlimit
		if err := unix.Getrlimit(resource, &current); err != nil {
			return nil, fmt.Errorf("ulimit %s: %w", l.Name, os.NewSyscallError("getrlimit", err))
		}
		if l.Hard > current.Max && userns.RunningInUserNS() {
			return nil, fmt.Errorf("ulimit %s: hard limit %d is above that of the user running bob, %d: raise it in /etc/security/limits.conf", l.Name, l.Hard, current.Max)
		}
		converted = append(converted, configs.Rlimit{Type: resource, Soft: l.Soft, Hard: l.Hard})
	}
	return converted, nil
}
