package executor

import (
	"fmt"
	"strconv"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/opencontainers/go-digest"
)

// A mountSource is where a bind mount or a new cache mount takes its files from.
type mountSource struct {
	command.Source

	basis basis // of the content
	// selection is of a directory of this machine, else nil.
	selection *filecopy.Selection
}

// mountSources are the sources of the mounts of a RUN, by their place in Run.Mounts; nil
// where there is none.
type mountSources []*mountSource

// sources are the sources of the mounts, as the command takes them.
func (found mountSources) sources() []*command.Source {
	all := make([]*command.Source, len(found))
	for i, m := range found {
		if m != nil {
			all[i] = &m.Source
		}
	}
	return all
}

// basis is the worst of the sources'.
func (found mountSources) basis() basis {
	worst := settled
	for _, m := range found {
		if m != nil {
			worst = max(worst, m.basis)
		}
	}
	return worst
}

// addMounts adds to r what the mounts of op have to do with the result, as in BuildKit:
// never what a cache mount, a secret or an agent holds.
func addMounts(r *recipe.Recipe, op *dockerfile.Run, found mountSources) error {
	for i, m := range op.Mounts {
		values, err := mountValues(m)
		if err != nil {
			return err
		}
		n := strconv.Itoa(i + 1)
		r.Add("options of mount "+n, values...)
		if found[i] != nil {
			r.Source("mount "+n, found[i].Content)
		}
	}
	return nil
}

// mountValues are all about m but the content of what it shows.
func mountValues(m dockerfile.Mount) ([]string, error) {
	switch m := m.(type) {
	case *dockerfile.BindMount:
		return []string{"bind", m.Target, recipe.Bool(m.ReadOnly)}, nil
	case *dockerfile.CacheMount:
		// The ID is part of the key only if none was written.
		plain := m.Sharing == "shared" && (m.ID == m.Target || command.ID(m) == m.Target)
		values := []string{"cache", m.Target, recipe.Bool(m.ReadOnly), recipe.Bool(plain), recipe.Bool(m.Emptied())}
		if m.Emptied() {
			values = append(values, ownerValues(*m.Owner)...)
		}
		return values, nil
	case *dockerfile.TmpfsMount:
		return []string{"tmpfs", m.Target, recipe.Bool(m.ReadOnly), recipe.Number(m.Size)}, nil
	case *dockerfile.SecretMount:
		return append([]string{"secret", m.ID, m.Target, m.Env, recipe.Bool(m.Required)}, ownerValues(m.Owner)...), nil
	case *dockerfile.SSHMount:
		return append([]string{"ssh", m.ID, m.Target, recipe.Bool(m.Required)}, ownerValues(m.Owner)...), nil
	default:
		return nil, fmt.Errorf("no mount %T", m)
	}
}

func ownerValues(o dockerfile.MountOwner) []string {
	return []string{recipe.Number(o.UID), recipe.Number(o.GID), recipe.Number(o.Mode)}
}

// cacheKey names the cache that the mount m is, the one at place i.
func (found mountSources) cacheKey(i int, m *dockerfile.CacheMount) digest.Digest {
	if found[i] == nil {
		return command.CacheKey(m, nil)
	}
	return command.CacheKey(m, &found[i].Source)
}
