package sandbox

import (
	"errors"
	"os"
	"syscall"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
)

// nestUser gives the container of config a user namespace of its own, with the same IDs.
// Capabilities in it don't count over what belongs to bob's namespace.
func nestUser(config *configs.Config) error {
	uids, gids, err := isolation.SameIDs()
	if err != nil {
		return err
	}
	config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWUSER})
	config.UIDMappings, config.GIDMappings = forContainer(uids), forContainer(gids)
	return nil
}

// forContainer returns maps as libcontainer has them.
func forContainer(maps []syscall.SysProcIDMap) []configs.IDMap {
	converted := make([]configs.IDMap, 0, len(maps))
	for _, m := range maps {
		converted = append(converted, configs.IDMap{ContainerID: int64(m.ContainerID), HostID: int64(m.HostID), Size: int64(m.Size)})
	}
	return converted
}

// nests reports whether a user namespace with the same IDs can be made below this
// one, which limits and filters may refuse.
func nests() bool {
	uids, gids, err := isolation.SameIDs()
	if err != nil {
		return false
	}
	// With one ID setgroups is denied, here and below.
	setgroups, err := os.ReadFile("/proc/self/setgroups")
	if err != nil {
		return false
	}
	// There is nothing to execute, which shows when the namespace has been made.
	_, err = syscall.ForkExec("", nil, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{ //nolint:gosec // nothing is
		Cloneflags: unix.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids,
		GidMappingsEnableSetgroups: string(setgroups) == "allow\n",
	}})
	return errors.Is(err, unix.ENOENT)
}
