package executor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// sharings are the kinds of sharing as [dockerfile.CacheMount] names them; the zero
// value is that of "shared".
var sharings = map[string]snapshot.Sharing{"private": snapshot.Private, "locked": snapshot.Locked}

// holdCaches opens the cache mounts, each once for the command, in an order that
// all commands have: two that want the same ones can't wait for each other.
func (m *mounting) holdCaches(ctx context.Context, found mountSources) error {
	type wanted struct {
		key  digest.Digest
		spec *dockerfile.CacheMount
		from *mountSource
	}
	var caches []wanted
	for i, spec := range m.op.Mounts {
		if spec, ok := spec.(*dockerfile.CacheMount); ok {
			caches = append(caches, wanted{cacheKey(spec, found[i]), spec, found[i]})
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
		c, err := m.store.CacheMount(ctx, w.key, sharings[w.spec.Sharing], waiting, func(dir string) error {
			if from := m.imported().Mount(ctx, w.key); from != nil {
				owner, err := m.imported().Unpack(ctx, dir, from)
				if err == nil {
					return give(dir, dockerfile.MountOwner(owner), m.store.Owners())
				}
				if ctx.Err() != nil {
					return err
				}
				m.progress.Warn(fmt.Sprintf("cache mount %s: %v; it begins anew", from.ID, err))
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

// mountID is the ID of m as a Dockerfile has it, without BUILDKIT_CACHE_MOUNT_NS.
func mountID(m *dockerfile.CacheMount) string {
	_, id, _ := strings.Cut(m.ID, "/")
	return id
}

// likeSource gives the directory dir the owner and mode of the one at source,
// resolved inside root, of which it holds the contents.
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

// fillCache makes what a new cache begins with at the path.
func (m *mounting) fillCache(ctx context.Context, dir string, spec *dockerfile.CacheMount, from *mountSource) error {
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
		src.Keep(m.store.Owners())
		selection, err := selectOne(ctx, src, from.source, false)
		if err != nil {
			return err
		}
		if err := selection.CopyTo(ctx, filepath.Dir(dir), "/"+filepath.Base(dir), filecopy.Options{Owners: m.store.Owners()}); err != nil {
			return err
		}
		return likeSource(dir, root, from.source, m.store.Owners())
	}
	owner := dockerfile.MountOwner{Mode: 0o755}
	if emptied(spec) {
		owner = *spec.Owner
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return give(dir, owner, m.store.Owners())
}
