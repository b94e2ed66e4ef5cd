// Package profile is what Docker's default containers may: their capabilities and their
// seccomp filter.
package profile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// capabilities are the names of Docker's.
var capabilities = [...]string{
	"CAP_AUDIT_WRITE",
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FOWNER",
	"CAP_FSETID",
	"CAP_KILL",
	"CAP_MKNOD",
	"CAP_NET_BIND_SERVICE",
	"CAP_NET_RAW",
	"CAP_SETFCAP",
	"CAP_SETGID",
	"CAP_SETPCAP",
	"CAP_SETUID",
	"CAP_SYS_CHROOT",
}

// ofNetwork are the ones among them that count in a network namespace.
var ofNetwork = [...]string{"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}

// Capabilities returns the names of Docker's.
func Capabilities() []string { return slices.Clone(capabilities[:]) }

// WithoutNetwork returns the names without those that count in a network namespace. A
// command that shares bob's network namespace must not have them: it could read what bob
// and others send.
func WithoutNetwork(names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(ofNetwork[:], name) })
}

// Own returns the names of the capabilities that bob has and may
// hand on.
func Own() ([]string, error) {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	known, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("list capabilities: %w", err)
	}
	var names []string
	for _, c := range known {
		if own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names, nil
}

// Sets returns the capabilities of a process of the user, which has these at most. For
// one that is not root only the bounding set is filled, as an execve(2) by
// such a user leaves it: what a setuid program may gain.
func Sets(names []string, uid uint32) *configs.Capabilities {
	c := &configs.Capabilities{Bounding: names}
	if uid == 0 {
		c.Permitted = names
		c.Effective = names
	}
	return c
}
