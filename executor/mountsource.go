package executor

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A mountSource is where a bind mount or a new cache mount takes its files from.
type mountSource struct {
	content digest.Digest // of what the source selects
	source  string        // absolute and clean path in the snapshot
	basis   basis         // of content
	// selection is of a directory of this machine, else nil.
	selection *filecopy.Selection
	// snapshot makes the files present. It is nil for the empty file system.
	snapshot func(ctx context.Context) (*snapshot.Snapshot, error)
}

// mountSources are those of the mounts of a RUN, by their place in Run.Mounts; nil
// where there is none.
type mountSources []*mountSource

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

// selectOne selects what is at the path called name. With itself a directory counts
// besides its contents.
func selectOne(ctx context.Context, src *filecopy.Tree, name string, itself bool) (*filecopy.Selection, error) {
	of := mountedPath(name)
	of.Itself = itself
	selection, err := src.Select(ctx, of)
	if err == nil && selection.Sources() == 0 {
		err = &filecopy.NotFoundError{Source: name}
	}
	return selection, err
}

// mountedPath is the source that selects name, whose characters stand for
// themselves.
func mountedPath(name string) filecopy.Source {
	pattern := strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", `\`, `[\\]`).Replace(name)
	return filecopy.Source{Path: strings.TrimPrefix(path.Join(".", pattern), "/")}
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
			r.Source("mount "+n, found[i].content)
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
		plain := m.Sharing == "shared" && (m.ID == m.Target || mountID(m) == m.Target)
		values := []string{"cache", m.Target, recipe.Bool(m.ReadOnly), recipe.Bool(plain), recipe.Bool(emptied(m))}
		if emptied(m) {
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

// emptied reports whether BuildKit begins a cache mount with a directory of its
// own in place of what From has: it does when an owner or a mode is given and no
// source.
func emptied(m *dockerfile.CacheMount) bool { return m.Owner != nil && m.Source == "/" }

// cacheKey names a cache. As in BuildKit one with the same ID that begins with
// something else is another cache. The name has a version of its own: what commands
// keep there is good whatever else has another version.
func cacheKey(m *dockerfile.CacheMount, from *mountSource) digest.Digest {
	values := []string{m.ID, ""}
	if emptied(m) {
		values[1] = fmt.Sprintf("{%d %d %d}", m.Owner.UID, m.Owner.GID, m.Owner.Mode)
	}
	if from != nil {
		// Only what the source selects is copied, where BuildKit keeps all of
		// From under one ID.
		values = append(values, from.content.String(), m.Source)
	}
	return recipe.Lasting("bob.key.v2", "cache mount", values...)
}
