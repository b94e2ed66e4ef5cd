package sandbox

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Process is a command and its surroundings.
type Process struct {
	// Root is the directory of the root file system, mounted by the caller,
	// and used by no other Run at the same time.
	Root string
	// Args is the command with its arguments. The first is looked up in the
	// PATH of Env, inside Root, unless it has a slash.
	Args []string
	// Env is the whole environment, as name=value. libcontainer adds HOME if
	// it is missing, from Root's /etc/passwd or as "/".
	Env []string
	// Dir is the absolute working directory in the container, "" is "/". As
	// in BuildKit it is made, owned by root with mode 0755, if it is missing.
	Dir string
	// UID and GID are the user, by number; Groups its supplementary groups.
	UID, GID uint32
	Groups   []uint32
	// Hostname is the host name in the container, "" is "bob".
	Hostname string
	// ExtraHosts are further lines of /etc/hosts, as "name:address".
	ExtraHosts []string
	// Network is what the command can reach.
	Network Network
	// Mounts are mounted in order, after those that every container has.
	Mounts []Mount
	// Insecure gives the command every capability that bob has itself, whatever
	// its user, and takes the confinement away: no seccomp filter, no masked
	// or read-only path, a writable /sys and, outside of user namespaces, the
	// devices of the host.
	Insecure bool
	// Private makes the run wait for other runs of the same Runner that could see into
	// its processes, and them for it: its environment or its files are a secret. That
	// is only where the outer /proc is bound, see the package documentation.
	Private bool
	// ShmSize is the size of /dev/shm in bytes, 0 is 64 MiB.
	ShmSize int64
	// Ulimits are resource limits; those not named are bob's own.
	Ulimits []Ulimit
	// Stdout and Stderr receive the output in chunks as it comes, each from
	// its own goroutine unless they are the same writer; nil discards it.
	// Nothing is written after Run has returned. When a write fails the
	// command is killed. The standard input is empty.
	Stdout, Stderr io.Writer
	// Restored is set by Run with Chroot: the paths, relative to Root, of what
	// was changed for the run and is again as it was in all but the time of its
	// last change (st_ctime).
	Restored []string
}

// hostname returns the host name of the container.
func (p *Process) hostname() string {
	if p.Hostname == "" {
		return defaultHostname
	}
	return p.Hostname
}

// check reports what no container can be made of.
func (p *Process) check() error {
	switch {
	case p.Root == "":
		return errors.New("run: no root file system")
	case len(p.Args) == 0 || p.Args[0] == "":
		return errors.New("run: no command")
	case p.Dir != "" && !strings.HasPrefix(p.Dir, "/"):
		return fmt.Errorf("run: working directory %s is not absolute", p.Dir)
	}
	for _, m := range p.Mounts {
		if m.Kind == Bind && !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) {
			return fmt.Errorf("run: mount of %s on %s: want absolute paths", m.Source, m.Target)
		}
	}
	return nil
}

// canonical returns the absolute path of the root file system, free of
// symlinks as libcontainer wants it.
func canonical(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("find root file system: %w", err)
	}
	return abs, nil
}

// groups converts supplementary groups. It never returns nil: the groups of
// bob itself are not the command's.
func groups(gids []uint32) []int {
	converted := make([]int, 0, len(gids))
	for _, g := range gids {
		converted = append(converted, int(g))
	}
	return converted
}

// workingDir returns the working directory.
func workingDir(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}

// Network is the network that a Process sees.
type Network int

// The networks of a Process.
const (
	// Host is the network of bob itself, the zero value.
	Host Network = iota
	// None is a network namespace of its own with only the loopback
	// interface, which is up.
	None
	// Private is a network namespace of its own whose packets a program outside
	// carries, as connections of the user who runs bob. See the package
	// documentation for what can't be reached.
	Private
)

// defaultHostname is the host name of a container that asks for no other name.
const defaultHostname = "bob"
