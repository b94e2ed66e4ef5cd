package layertar

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// applyWhiteouts puts the whiteouts of the layer into overlay format.
func (x *extractor) applyWhiteouts() error {
	slices.Sort(x.layer.Opaque)
	for _, name := range slices.Compact(x.layer.Opaque) {
		x.tree.trim()
		d, err := x.tree.resolve(name, true)
		if err == nil {
			err = x.markOpaque(d)
		}
		if err != nil {
			return fmt.Errorf("extract %q: %w", relpath.Join(name, layers.OpaqueName), err)
		}
	}
	// In this order a directory's whiteout comes before those in it.
	slices.Sort(x.layer.Removed)
	for _, name := range slices.Compact(x.layer.Removed) {
		x.tree.trim()
		if err := x.whiteout(name); err != nil && !errors.Is(err, ErrHidden) {
			parent, base := relpath.Split(name)
			return fmt.Errorf("extract %q: %w", relpath.Join(parent, layers.WhiteoutPrefix+base), err)
		}
	}
	return nil
}

func (x *extractor) whiteout(name string) error {
	parent, base := relpath.Split(name)
	p, err := x.tree.resolve(parent, true)
	if err != nil {
		return err
	}
	err = x.layer.marks.Whiteout(p.FD, base)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// The layer has something of that name itself: only a directory would show
	// what is below.
	var st unix.Stat_t
	if err := unix.Fstatat(p.FD, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	d, err := x.tree.child(p, base)
	if err != nil {
		return err
	}
	return x.markOpaque(d)
}

func (x *extractor) markOpaque(d *file.Dir) error {
	x.layer.opaqueAt[d.Path] = true
	return x.layer.marks.MakeOpaque(d.FD)
}
