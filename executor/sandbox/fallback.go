package sandbox

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// fallback is a set of things that the machine refuses, see the package
// documentation.
type fallback uint32

const (
	boundProc  fallback = 1 << iota // no new proc file system
	boundSys                        // no new sysfs
	movedRoot                       // no pivot_root
	sharedUser                      // no user namespace below bob's
)

// refusedBy returns the fallback that avoids the error of a container that
// could not be started, 0 if there is none. libcontainer's init is another
// process and sends its errors as text.
func refusedBy(err error) fallback {
	var start *startError
	if !errors.As(err, &start) {
		return 0
	}
	text := start.Error()
	refused := strings.Contains(text, unix.EPERM.Error()) || strings.Contains(text, unix.ENOSYS.Error())
	switch {
	case refused && strings.Contains(text, `error mounting "proc" to rootfs`):
		return boundProc
	case refused && strings.Contains(text, `error mounting "sysfs" to rootfs`):
		return boundSys
	case strings.Contains(text, "pivot_root .:") && (refused || strings.Contains(text, unix.EINVAL.Error())):
		return movedRoot
	}
	return 0
}

// nested reports whether the command gets a user namespace of its own.
func (p *Process) nested(refused fallback) bool { return !p.Insecure && refused&sharedUser == 0 }
