package command

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Sharing is how m shares its directory with other commands.
func Sharing(m *dockerfile.CacheMount) snapshot.Sharing {
	switch m.Sharing {
	case "private":
		return snapshot.Private
	case "locked":
		return snapshot.Locked
	default:
		return snapshot.Shared
	}
}

// holdCaches opens the cache mounts, each once for the command. All commands open them
// in the same order, so that two commands can't wait for each other.
func (m *mounting) holdCaches(ctx context.Context, found []*Source) error {
	type wanted struct {
		key  digest.Digest
		spec *dockerfile.CacheMount
		from *Source
	}
	var caches []wanted
	for i, spec := range m.op.Mounts {
		if spec, ok := spec.(*dockerfile.CacheMount); ok {
			caches = append(caches, wanted{CacheKey(spec, found[i]), spec, found[i]})
		}
	}
	slices.SortStableFunc(caches, func(a, b wanted) int { return cmp.Compare(a.key, b.key) })
	for _, w := range caches {
		if m.caches[w.key] != nil {
			continue
		}
		waiting := func() {
			_, _ = fmt.Fprintf(m.vertex.Log(2), "waiting for the cache mount on %s, which another build uses\n", w.spec.Target)
		}
		c, err := m.Store.CacheMount(ctx, w.key, Sharing(w.spec), waiting, func(dir string) error {
			if from := m.Imported(ctx, w.key); from != nil {
				owner, err := from.Unpack(ctx, dir)
				if err == nil {
					return give(dir, owner, m.Store.Owners())
				}
				if ctx.Err() != nil {
					return err
				}
				m.Progress.Warn(fmt.Sprintf("cache mount %s: %v; it begins anew", from.ID, err))
			}
			return m.fillCache(ctx, dir, w.spec, w.from)
		})
		if err != nil {
			return fmt.Errorf("mount on %s: %w", w.spec.Target, err)
		}
		m.undo = append(m.undo, c.Close)
		m.caches[w.key] = c
	}
	return nil
}

// likeSource gives the directory dir the owner and mode of the directory at source,
// resolved inside root. dir holds the contents of source.
func likeSource(dir, root, source string, keeper owners.Keeper) error {
	handle, err := filecopy.OpenInRoot(root, source)
	if err != nil {
		return err
	}
	defer handle.Close()
	var st unix.Stat_t
	if err := keeper.Fstat(int(handle.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	return give(dir, dockerfile.MountOwner{UID: st.Uid, GID: st.Gid, Mode: st.Mode}, keeper)
}

// fillCache makes the first content of a new cache at the path.
func (m *mounting) fillCache(ctx context.Context, dir string, spec *dockerfile.CacheMount, from *Source) error {
	if from != nil {
		root, err := m.files(ctx, from, true)
		if err != nil {
			return err
		}
		src, err := filecopy.OpenDir(root, nil)
		if err != nil {
			return err
		}
		defer src.Close()
		src.Keep(m.Store.Owners())
		selection, err := Select(ctx, src, from.Path, false)
		if err != nil {
			return err
		}
		if err := selection.CopyTo(ctx, filepath.Dir(dir), "/"+filepath.Base(dir), filecopy.Options{Owners: m.Store.Owners()}); err != nil {
			return err
		}
		return likeSource(dir, root, from.Path, m.Store.Owners())
	}
	owner := dockerfile.MountOwner{Mode: 0o755}
	if spec.Emptied() {
		owner = *spec.Owner
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return give(dir, owner, m.Store.Owners())
}
