package sandbox

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
)

// A placement puts mounts into a root file system, one after the other.
type placement struct {
	points  *mountpoint.Set
	placed  []placedMount
	covered []string // targets so far, as written and resolved
}

// A placedMount is a mount whose destination is where it leads to.
type placedMount struct {
	*configs.Mount
	isDir bool
	// hidden says that what the root file system has there is below another mount.
	hidden bool
}

// placeMounts resolves the targets of all mounts of the container in the root
// file system and makes the mount points that are missing there. A mount of the
// process on the very target of another takes the place of that one, as in BuildKit.
// It returns the mounts for libcontainer. memory is where files in memory are made.
func placeMounts(points *mountpoint.Set, system []*configs.Mount, host, mounts []Mount, memory *memoryFiles) ([]*configs.Mount, error) {
	p := &placement{points: points}
	for _, m := range system {
		if err := p.place(m, true); err != nil {
			return nil, err
		}
	}
	for _, m := range host {
		if points.Unreachable(m.Target) {
			continue
		}
		if err := p.add(m, memory); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	for _, m := range mounts {
		if err := p.add(m, memory); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	all := make([]*configs.Mount, 0, len(p.placed))
	for _, m := range p.placed {
		if err := p.makePoint(m); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Destination, err)
		}
		all = append(all, m.Mount)
	}
	return all, nil
}

// add places one mount of the process.
func (p *placement) add(m Mount, memory *memoryFiles) error {
	switch m.Kind {
	case Tmpfs:
		return p.place(tmpfsMount(m), true)
	case Memory:
		bind, err := memory.mount(m)
		if err != nil {
			return err
		}
		return p.place(bind, false)
	case Bind:
	}
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	return p.place(bindMount(m), info.IsDir())
}

// place places one mount on a directory, or a file if isDir is false.
func (p *placement) place(m *configs.Mount, isDir bool) error {
	target := path.Clean(m.Destination)
	m.Destination = target
	placed := placedMount{Mount: m, isDir: isDir, hidden: mountpoint.IsBelow(target, p.covered)}
	if !placed.hidden {
		resolved, err := p.points.Resolve(target)
		if err != nil {
			return err
		}
		m.Destination = resolved
		placed.hidden = mountpoint.IsBelow(resolved, p.covered)
	}
	// Those that lie below the one that is replaced stay there.
	if i := slices.IndexFunc(p.placed, func(o placedMount) bool { return o.Destination == m.Destination }); i >= 0 {
		p.placed[i] = placed
		return nil
	}
	p.placed = append(p.placed, placed)
	if !placed.hidden {
		p.covered = append(p.covered, target, m.Destination)
	}
	return nil
}

// makePoint makes what a mount is mounted on, unless it is there.
func (p *placement) makePoint(m placedMount) error {
	if m.hidden {
		return nil
	}
	made, err := p.points.Make(m.Destination, m.isDir)
	if made && m.Device == "tmpfs" && m.Destination != "/dev" {
		// libcontainer gives a tmpfs the mode of what is there, which here is
		// a stub. The last of several modes counts.
		m.Data = strings.TrimPrefix(m.Data+",mode=1777", ",")
	}
	return err
}
