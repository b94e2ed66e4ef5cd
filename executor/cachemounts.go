package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A cachedMount is a cache mount of RUN as a layer of a cache.
type cachedMount struct {
	ID    string        `json:"id"` // as the Dockerfile has it
	Key   digest.Digest `json:"key"`
	Layer int           `json:"layer"`
	// Owner is that of the directory itself, which the layer doesn't hold.
	Owner dockerfile.MountOwner `json:"owner"`
}

// A mountLayer is a cache mount with its layer.
type mountLayer struct {
	cachedMount

	layer *image.Layer
}

// A usedMount is a cache mount that steps of this build name.
type usedMount struct {
	id      string
	sharing snapshot.Sharing // the strictest that one of them asks for
}

// mountID is the ID of m as a Dockerfile has it, without BUILDKIT_CACHE_MOUNT_NS.
func mountID(m *dockerfile.CacheMount) string {
	_, id, _ := strings.Cut(m.ID, "/")
	return id
}

// noteMounts remembers for the caches what cache mounts op names.
func (b *build) noteMounts(op *dockerfile.Run, found mountSources) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range op.Mounts {
		if m, ok := m.(*dockerfile.CacheMount); ok {
			key := cacheKey(m, found[i])
			b.mounts[key] = usedMount{mountID(m), max(b.mounts[key].sharing, sharings[m.Sharing])}
		}
	}
}

// exportMounts returns the cache mounts that t asks for as layers in format f: those of
// this machine, and where it has none, those of the imported caches.
func (b *build) exportMounts(ctx context.Context, t *CacheTarget, f *image.Format) ([]mountLayer, error) {
	var all []mountLayer
	for _, id := range t.Mounts {
		found := make(map[digest.Digest]bool)
		for _, key := range b.usedMounts(id) {
			m, err := b.packMount(ctx, id, key, f)
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case errors.Is(err, errNoMount):
				continue
			case err != nil:
				b.progress.Warn(fmt.Sprintf("cache mount %s: %v; it isn't exported", id, err))
			default:
				all = append(all, *m)
			}
			found[key] = true
		}
		for _, c := range b.importedCaches(ctx) {
			for _, m := range c.mounts {
				if m.ID != id || found[m.Key] {
					continue
				}
				found[m.Key] = true
				if _, err := b.exporter.Pack(ctx, m.layer.In(f)); err != nil {
					return nil, err
				}
				all = append(all, m)
			}
		}
		if len(found) == 0 {
			b.progress.Warn(fmt.Sprintf("no cache mount with the ID %s is exported: no RUN of this build has filled one", id))
		}
	}
	return all, nil
}

// usedMounts returns the keys of the cache mounts called id, in their order.
func (b *build) usedMounts(id string) []digest.Digest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []digest.Digest
	for key, m := range b.mounts {
		if m.id == id {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

var errNoMount = errors.New("there is none")

// packMount makes the layer of the cache mount key, which is held meanwhile as a RUN
// holds it. It is errNoMount if this machine has none that may be used.
func (b *build) packMount(ctx context.Context, id string, key digest.Digest, f *image.Format) (_ *mountLayer, err error) {
	v := b.progress.Start("exporting cache mount " + id)
	defer func() { v.Done(nil) }() // a warning tells
	waiting := func() { _, _ = fmt.Fprintln(v.Log(2), "waiting for the cache mount, which another build uses") }
	b.mu.Lock()
	sharing := b.mounts[key].sharing
	b.mu.Unlock()
	mount, err := b.Store.CacheMount(ctx, key, sharing, waiting, func(string) error { return errNoMount })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, mount.Close()) }()
	m := &mountLayer{cachedMount: cachedMount{ID: id, Key: key}}
	var st unix.Stat_t
	if err := b.Store.Owners().Fstatat(unix.AT_FDCWD, mount.Root(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: mount.Root(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, errors.New("it is no directory")
	}
	m.Owner = dockerfile.MountOwner{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	content, err := snapshot.Archive(ctx, snapshot.Tree{Root: mount.Root(), Owners: b.Store.Owners()}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if m.layer, err = b.exporter.PackStream(ctx, content, f); err != nil {
		return nil, err
	}
	return m, nil
}

// importedMount returns the cache mount key that an imported cache has, nil if none.
func (b *build) importedMount(ctx context.Context, key digest.Digest) *mountLayer {
	for _, c := range b.importedCaches(ctx) {
		for i := range c.mounts {
			if c.mounts[i].Key == key {
				return &c.mounts[i]
			}
		}
	}
	return nil
}

// unpackMount makes the directory dir of what m holds. After an error nothing is there.
func (m *mounting) unpackMount(ctx context.Context, dir string, from *mountLayer) (err error) {
	v := m.progress.Start("importing cache mount " + from.ID)
	defer func() { v.Done(nil) }() // a warning tells
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	img, l := from.layer.Origin()
	content, err := source.OpenBlob(ctx, v, img, l.Descriptor)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := snapshot.Extract(ctx, dir, "/", content, snapshot.ExtractOptions{Owners: m.store.Owners(), MaxSize: m.opts.MaxUnpacked}); err != nil {
		return err
	}
	// The digest is verified at the end of the blob.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	return give(dir, from.Owner, m.store.Owners())
}
