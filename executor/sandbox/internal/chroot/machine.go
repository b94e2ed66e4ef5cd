package chroot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// A Machine runs commands in chroots, and remembers what this machine allows them. Its zero
// value is ready; its methods may be called concurrently. It must not be copied after use.
type Machine struct {
	try     sync.Once
	nodes   emulate.Nodes
	anyFile bool // whether Landlock can't keep commands to the files of the root
}

// Run runs the command and waits until it and all that it started are gone. Everything that
// it makes it also removes. The error is ctx's when that ended the command.
func (m *Machine) Run(ctx context.Context, c *Command) (result Result, err error) {
	order, err := newOrder(c)
	if err != nil {
		return Result{}, err
	}
	places, err := openPlaces(c.Root, c.State, c.Copy)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		restored, errRemove := places.remove(context.WithoutCancel(ctx))
		result.Restored = restored
		err = errors.Join(err, errRemove)
	}()
	if err := places.addSystem(c.Etc, c.Mounts); err != nil {
		return Result{}, err
	}
	if err := places.addMounts(ctx, c.Mounts); err != nil {
		return Result{}, err
	}
	m.try.Do(func() {
		m.nodes = emulate.FindNodes(c.State)
		m.anyFile = order.Landlock >= landlock.Refer && !landlock.Refers(c.State, order.Landlock)
	})
	order.AnyFile = m.anyFile
	switch {
	case m.nodes.Outer:
		order.Devices = outerMakes
	case m.nodes.Listens:
		order.Devices = guardMakes
	}
	if err := checkDevices(c.Root); err != nil {
		return Result{}, err
	}
	return runGuarded(ctx, c, order, places.secrets())
}

// newOrder returns what the processes of the command are told.
func newOrder(c *Command) (*order, error) {
	capabilities, err := capabilitiesHere()
	if err != nil {
		return nil, err
	}
	o := &order{
		Root: c.Root, Args: c.Args, Env: c.Env, Dir: c.Dir, Umask: c.Umask,
		UID: c.UID, GID: c.GID, Groups: c.Groups,
		Rlimits: c.Rlimits, Capabilities: capabilities, Landlock: landlock.Version(),
	}
	if o.Landlock < landlock.Scopes {
		o.Protected = lineage()
	}
	return o, nil
}

// Limits says what commands lack that others have which are run in a sandbox. It tries what
// it doesn't know in dir, an empty directory as the State of a Command.
func Limits(dir string) ([]*obstacle.Obstacle, error) {
	limits := []*obstacle.Obstacle{
		{Why: "commands find no /proc but copies of a few of its files, no /sys, no terminals, and no /dev/stdout or /dev/fd"},
		{Why: "commands can't use chroot, raw sockets, or the powers of set-user-ID programs as sudo"},
		{Why: "what is mounted read-only can be written to, in vain; tmpfs mounts are on the disk and have no limit, and secrets are on the disk while a command runs"},
	}
	if o := landlock.MissingScopes("a command that is out for it can end other processes of the container, and reach their abstract sockets"); o != nil {
		limits = append(limits, o)
	}
	err := makeDevices(filepath.Join(dir, "dev"))
	if info, errStat := os.Stat(filepath.Join(dir, "dev/null")); err == nil && errStat == nil && info.Mode().IsRegular() {
		limits = append(limits, obstacle.New(
			"devices can't be made or opened in "+filepath.Dir(dir)+": commands find a file as /dev/null, and neither /dev/zero nor /dev/urandom",
			"put the cache directory on a file system that is not mounted with nodev, and don't drop CAP_MKNOD",
		))
	}
	return limits, err
}
