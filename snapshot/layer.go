package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

const aufsPrefix = ".wh..wh." // of AUFS itself, to be ignored

// layerWork is what the entries of a layer leave to be done when all of them, and
// the layers below, are there.
type layerWork struct {
	implicit map[string]bool // directories without an entry, by path
	removed  []string        // names that the layer removes from those below
	opaque   []string        // directories that hide those below
	links    []layerLink     // hard links to what isn't in this layer
	opaqueAt map[string]bool // directories that were marked, by path

	marks layers.Marks // of the store
}

// layerLink is a hard link: path as in the layer, target and attributes as in the archive.
type layerLink struct {
	path, target string
	attrs        file.Attrs
}

func newLayerWork(m layers.Marks) *layerWork {
	return &layerWork{implicit: map[string]bool{"": true}, opaqueAt: map[string]bool{}, marks: m}
}

// take notes the whiteout name and reports whether it is one. Whiteouts concern
// the layers below alone, whatever their place in the archive, so they are put
// off until the layer's own entries are there.
func (w *layerWork) take(name string) (bool, error) {
	parent, base := relpath.Split(name)
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, aufsPrefix) && element != layers.OpaqueName {
			return true, nil
		}
	}
	if err := checkNoWhiteout(parent); err != nil {
		return false, err
	}
	if base == layers.OpaqueName {
		w.opaque = append(w.opaque, parent)
		return true, nil
	}
	hidden, ok := strings.CutPrefix(base, layers.WhiteoutPrefix)
	if !ok {
		return false, nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return false, fmt.Errorf("invalid whiteout: it removes %q", hidden)
	}
	w.removed = append(w.removed, relpath.Join(parent, hidden))
	return true, nil
}

// checkNoWhiteout refuses a name with an element that is a whiteout.
func checkNoWhiteout(name string) error {
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, layers.WhiteoutPrefix) {
			return fmt.Errorf("%q is a whiteout and can't be used as a file", element)
		}
	}
	return nil
}

// applyWhiteouts puts the whiteouts of the layer into overlay format.
func (x *extractor) applyWhiteouts() error {
	slices.Sort(x.layer.opaque)
	for _, name := range slices.Compact(x.layer.opaque) {
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
	slices.Sort(x.layer.removed)
	for _, name := range slices.Compact(x.layer.removed) {
		x.tree.trim()
		if err := x.whiteout(name); err != nil && !errors.Is(err, errHidden) {
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
