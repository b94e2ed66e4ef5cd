package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/overlay"
)

// overlays is the snapshotter that mounts overlays.
type overlays struct {
	unpacked

	flats *checkout.Flats // what has more layers than an overlay takes
	fuse  bool            // by fuse-overlayfs
}

func (s *overlays) prepare(ctx context.Context, dir string, below checkout.Stack) (changedFileSystem, error) {
	o := overlay.Dirs{
		Lower:  s.atLeast(1, below.Layers),
		Upper:  filepath.Join(dir, "fs"),
		Work:   filepath.Join(dir, "work"),
		Target: filepath.Join(dir, "mnt"),
	}
	for _, d := range []string{o.Upper, o.Work} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	// The root directory of an overlay is that of its upper layer.
	if err := file.CopyAttrs(o.Lower[0], o.Upper, s.owners); err != nil {
		return nil, err
	}
	return s.mount(ctx, o)
}

func (s *overlays) view(ctx context.Context, dir string, shown checkout.Stack) (fileSystem, error) {
	return s.mount(ctx, overlay.Dirs{Lower: s.atLeast(2, shown.Layers), Target: filepath.Join(dir, "mnt")})
}

// mount mounts o at its target, which it makes.
func (s *overlays) mount(ctx context.Context, o overlay.Dirs) (changedFileSystem, error) {
	if err := os.Mkdir(o.Target, 0o700); err != nil {
		return nil, err
	}
	all := o.Lower
	var err error
	if o.Lower, err = s.flats.Fewer(ctx, all, overlay.MaxLayers); err != nil {
		return nil, err
	}
	if s.fuse {
		return overlay.NewFuse(ctx, o, s.dir, s.owners, s.marks)
	}
	if s.marks == layers.FileMarks {
		return nil, fmt.Errorf("the kernel's overlay needs devices 0:0 for removed files, which can't be made in %s%s", s.dir, overlay.Unsuitable(s.dir))
	}
	m, err := overlay.New(o)
	if err == nil || len(o.Lower) <= overlay.ClassicLayers {
		return m, err
	}
	if o.Lower, err = s.flats.Fewer(ctx, o.Lower, overlay.ClassicLayers); err != nil {
		return nil, err
	}
	return overlay.New(o)
}

func (s *overlays) close() error { return s.flats.Close() }
