package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// NoteMount notes for the export that a step uses the cache mount key, which the
// Dockerfile calls id.
func (c *Caches) NoteMount(key digest.Digest, id string, sharing snapshot.Sharing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mounts[key] = usedMount{id, max(c.mounts[key].sharing, sharing)}
}

// exportMounts returns the cache mounts that t asks for as layers in format f: from
// this machine, or from the imported caches if the machine doesn't have the mount.
func (c *Caches) exportMounts(ctx context.Context, t *Target, f *image.Format) ([]Mount, error) {
	var all []Mount
	for _, id := range t.Mounts {
		found := make(map[digest.Digest]bool)
		for _, key := range c.usedMounts(id) {
			m, err := c.packMount(ctx, id, key, f)
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case errors.Is(err, errNoMount):
				continue
			case err != nil:
				c.o.Progress.Warn(fmt.Sprintf("cache mount %s: %v; it isn't exported", id, err))
			default:
				all = append(all, *m)
			}
			found[key] = true
		}
		for _, i := range c.found(ctx) {
			for _, m := range i.mounts {
				if m.ID == id && !found[m.Key] {
					found[m.Key] = true
					all = append(all, m)
				}
			}
		}
		if len(found) == 0 {
			c.o.Progress.Warn(fmt.Sprintf("no cache mount with the ID %s is exported: no RUN of this build has filled one", id))
		}
	}
	return all, nil
}

// usedMounts returns the keys of the cache mounts called id, in their order.
func (c *Caches) usedMounts(id string) []digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var keys []digest.Digest
	for key, m := range c.mounts {
		if m.id == id {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

var errNoMount = errors.New("there is none")

// packMount makes the layer of the cache mount key, and meanwhile holds the mount as a
// RUN does. The error is errNoMount if this machine has no such mount that may be used.
func (c *Caches) packMount(ctx context.Context, id string, key digest.Digest, f *image.Format) (_ *Mount, err error) {
	v := c.o.Progress.Start("exporting cache mount " + id)
	defer func() { v.Done(nil) }() // the failure is a warning
	waiting := func() { _, _ = fmt.Fprintln(v.Log(2), "waiting for the cache mount, which another build uses") }
	c.mu.Lock()
	sharing := c.mounts[key].sharing
	c.mu.Unlock()
	mount, err := c.o.Store.CacheMount(ctx, key, sharing, waiting, func(string) error { return errNoMount })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, mount.Close()) }()
	m := &Mount{mountEntry: mountEntry{ID: id, Key: key}}
	var st unix.Stat_t
	if err := c.o.Store.Owners().Fstatat(unix.AT_FDCWD, mount.Root(), &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: mount.Root(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, errors.New("it is no directory")
	}
	m.Owner = Owner{UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o7777}
	content, err := snapshot.Archive(ctx, snapshot.Tree{Root: mount.Root(), Owners: c.o.Store.Owners()}, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if m.layer, err = c.o.Exporter.PackStream(ctx, content, f); err != nil {
		return nil, err
	}
	return m, nil
}

// Mount returns the cache mount key of an imported cache, nil if no cache has it.
func (c *Caches) Mount(ctx context.Context, key digest.Digest) *Mount {
	for _, i := range c.found(ctx) {
		for k := range i.mounts {
			if i.mounts[k].Key == key {
				return &i.mounts[k]
			}
		}
	}
	return nil
}

// Unpack makes the directory dir with the content of m, and returns the owner that the
// caller has to give it. After an error dir doesn't exist.
func (c *Caches) Unpack(ctx context.Context, dir string, m *Mount) (_ Owner, err error) {
	v := c.o.Progress.Start("importing cache mount " + m.ID)
	defer func() { v.Done(nil) }() // the failure is a warning
	if err := os.Mkdir(dir, 0o700); err != nil {
		return Owner{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	img, l := m.layer.Origin()
	content, err := source.OpenBlob(ctx, v, img, l.Descriptor)
	if err != nil {
		return Owner{}, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	if err := snapshot.Extract(ctx, dir, "/", content, snapshot.ExtractOptions{Owners: c.o.Store.Owners(), MaxSize: c.o.MaxUnpacked}); err != nil {
		return Owner{}, err
	}
	// The digest is verified at the end of the blob.
	_, err = io.Copy(io.Discard, content)
	return m.Owner, err
}
