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

// A mountSource is the origin of the files of a bind mount or of a new cache mount.
type mountSource struct {
	command.Source

	basis basis // of the content
	// selection is of a directory of this machine, else nil.
	selection *filecopy.Selection
}

// mountSources are the sources of the mounts of a RUN, by their index in Run.Mounts;
// nil for a mount without a source.
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

// basis returns the worst basis of the sources.
func (found mountSources) basis() basis {
	worst := settled
	for _, m := range found {
		if m != nil {
			worst = max(worst, m.basis)
		}
	}
	return worst
}

// addMounts adds to r everything about the mounts of op that the result depends on. As
// in BuildKit, the content of cache mounts, secrets and agents doesn't count.
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

// mountValues returns everything about m except the content of its source.
func mountValues(m dockerfile.Mount) ([]string, error) {
	switch m := m.(type) {
	case *dockerfile.BindMount:
		return []string{"bind", m.Target, recipe.Bool(m.ReadOnly)}, nil
	case *dockerfile.CacheMount:
		// The ID is part of the key only if the Dockerfile gives no ID.
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

// cacheKey names the cache of the mount m, which has the index i.
func (found mountSources) cacheKey(i int, m *dockerfile.CacheMount) digest.Digest {
	if found[i] == nil {
		return command.CacheKey(m, nil)
	}
	return command.CacheKey(m, &found[i].Source)
}
