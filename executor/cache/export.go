package cache

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// format returns how the layers of t are written.
func (c *Caches) format(t *Target) *image.Format {
	f := &image.Format{}
	if formats := c.o.Exporter.Formats(); len(formats) > 0 {
		f.Compression = formats[0].Compression
	}
	if t.Compression != nil {
		f.Compression = *t.Compression
	}
	return f
}

// Note remembers s for the caches, and begins to make its layer for them.
func (c *Caches) Note(s Step) {
	if len(c.o.Targets) == 0 {
		return
	}
	c.mu.Lock()
	c.steps = append(c.steps, s)
	c.mu.Unlock()
	for i := range c.o.Targets {
		if t := &c.o.Targets[i]; !t.Inline && (t.Max || s.InImage) {
			c.o.Exporter.StartBlob(s.Layer.In(c.format(t)))
		}
	}
}

// noted returns the steps for a cache, one for each key, in the order of the keys. If
// all is set they are the steps of all stages, else the steps of the result.
func (c *Caches) noted(all bool) []Step {
	c.mu.Lock()
	defer c.mu.Unlock()
	var steps []Step
	for _, s := range c.steps {
		if all || s.InImage {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.Key, b.Key) })
	return slices.CompactFunc(steps, func(a, b Step) bool { return a.Key == b.Key })
}

// Inline returns the records of the layers of an image for its config in format f, nil
// if no target is inline.
func (c *Caches) Inline(ctx context.Context, layers []*image.Layer, f *image.Format) (any, error) {
	if !slices.ContainsFunc(c.o.Targets, func(t Target) bool { return t.Inline }) {
		return nil, nil
	}
	m := c.manifest(f)
	for _, l := range layers {
		if err := m.addLayer(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, s := range c.noted(false) {
		if i := slices.Index(layers, s.Layer); i >= 0 {
			if _, err := m.addStep(ctx, &s, i); err != nil {
				return nil, err
			}
		}
	}
	return &m.records, nil
}

// Export writes the caches that are not part of the image.
func (c *Caches) Export(ctx context.Context) error {
	for i := range c.o.Targets {
		t := &c.o.Targets[i]
		if t.Inline {
			continue
		}
		err := c.export(ctx, t)
		if err != nil && t.IgnoreError && ctx.Err() == nil {
			c.o.Progress.Warn(fmt.Sprintf("export cache to %s: %v", t, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", t, err)
		}
	}
	return nil
}

func (c *Caches) export(ctx context.Context, t *Target) (err error) {
	v := c.o.Progress.Start("exporting cache to " + t.String())
	defer func() {
		if t.IgnoreError {
			v.Done(nil) // the failure is a warning
			return
		}
		v.Done(err)
	}()
	m := c.manifest(c.format(t))
	steps := c.noted(t.Max)
	for _, s := range steps {
		for _, l := range append(slices.Clip(s.Below), s.Layer) {
			c.o.Exporter.StartBlob(l.In(m.format))
		}
	}
	for _, s := range steps {
		n, made, err := m.add(ctx, s.Layer)
		if err != nil {
			return err
		}
		below, err := m.addStep(ctx, &s, n)
		if err != nil {
			return err
		}
		if err := rememberChain(c.o.Store, s.RootFS.ID(), chainOver(below, made.DiffID)); err != nil {
			return err
		}
	}
	mounts, err := c.exportMounts(ctx, t, m.format)
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		if mount.Layer, _, err = m.add(ctx, mount.layer); err != nil {
			return err
		}
		m.records.Mounts = append(m.records.Mounts, mount.mountEntry)
	}
	return t.backend(c.o.Registry).save(ctx, m)
}

// manifest returns a cache without steps whose layers are in format f.
func (c *Caches) manifest(f *image.Format) *manifest {
	m := &manifest{exporter: c.o.Exporter, format: f, numbers: make(map[digest.Digest]int)}
	m.records = records{Epoch: c.o.Epoch, Packing: snapshot.Packing, Layers: []layerEntry{}, Steps: []stepEntry{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, to := range c.links {
		m.records.Links = append(m.records.Links, link{key, to})
	}
	slices.SortFunc(m.records.Links, func(a, b link) int { return cmp.Compare(a.Key, b.Key) })
	return m
}
