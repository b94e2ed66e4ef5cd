package sandbox

import (
	"path/filepath"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/mountattr"
)

// withoutAttributes returns mounts of a container that come to the same without
// mount_setattr(2), if that is refused. Each mount below a bound directory is then
// bound once more, since mount(2) changes one mount at a time.
func withoutAttributes(mounts []*configs.Mount) ([]*configs.Mount, error) {
	// The kernel looks for the path, which isn't there, after a filter has had its say.
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); !mountattr.IsRefused(err) {
		return mounts, nil
	}
	var all []*configs.Mount
	for _, m := range mounts {
		all = append(all, m)
		if m.RecAttr == nil {
			continue
		}
		flags := int(mountattr.Flags(m.RecAttr.Attr_set))
		m.Flags, m.RecAttr = m.Flags|flags, nil
		if m.Flags&unix.MS_REC == 0 {
			continue
		}
		source, err := filepath.EvalSymlinks(m.Source)
		if err != nil {
			return nil, err
		}
		below, err := mountattr.Visible(source)
		if err != nil {
			return nil, err
		}
		for _, b := range below {
			rest := strings.TrimPrefix(b.Mountpoint, source)
			if rest == "" {
				continue // m itself
			}
			all = append(all, &configs.Mount{
				Source: b.Mountpoint, Destination: filepath.Join(m.Destination, rest), Device: "bind",
				// Those below are locked to it, and bound in their turn.
				Flags: unix.MS_BIND | unix.MS_REC | flags | int(mountattr.FlagsOf(b)),
			})
		}
	}
	return all, nil
}
