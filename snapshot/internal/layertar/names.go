package layertar

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
)

const aufsPrefix = ".wh..wh." // of AUFS itself, to be ignored

// layerWork is what the entries of a layer leave to be done when all of them, and
// the layers below, are there.
type layerWork struct {
	Whiteouts

	implicit map[string]bool // directories without an entry, by path
	links    []Link          // hard links to what isn't in this layer
	opaqueAt map[string]bool // directories that were marked, by path

	marks layers.Marks // of the store
}

// Whiteouts are what the names of a layer's entries say of those below it.
type Whiteouts struct {
	Removed []string // names that the layer removes
	Opaque  []string // directories that hide those below
}

// Link is a hard link: path as in the layer, target and attributes as in the archive.
type Link struct {
	Path, Target string
	Attrs        file.Attrs
}

func newLayerWork(m layers.Marks) *layerWork {
	return &layerWork{implicit: map[string]bool{"": true}, opaqueAt: map[string]bool{}, marks: m}
}

// Take notes the whiteout name and reports whether it is one. Whiteouts concern
// the layers below alone, whatever their place in the archive, so they are put
// off until the layer's own entries are there.
func (w *Whiteouts) Take(name string) (bool, error) {
	parent, base := relpath.Split(name)
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, aufsPrefix) && element != layers.OpaqueName {
			return true, nil
		}
	}
	if err := CheckNoWhiteout(parent); err != nil {
		return false, err
	}
	if base == layers.OpaqueName {
		w.Opaque = append(w.Opaque, parent)
		return true, nil
	}
	hidden, ok := strings.CutPrefix(base, layers.WhiteoutPrefix)
	if !ok {
		return false, nil
	}
	if hidden == "" || hidden == "." || hidden == ".." {
		return false, fmt.Errorf("invalid whiteout: it removes %q", hidden)
	}
	w.Removed = append(w.Removed, relpath.Join(parent, hidden))
	return true, nil
}

// CheckNoWhiteout refuses a name with an element that is a whiteout.
func CheckNoWhiteout(name string) error {
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, layers.WhiteoutPrefix) {
			return fmt.Errorf("%q is a whiteout and can't be used as a file", element)
		}
	}
	return nil
}

// ErrWhiteoutName is the error of a file that a layer would take for a removed name.
var ErrWhiteoutName = errors.New("its name begins with " + layers.WhiteoutPrefix + ", which an image layer can't hold: it means a removed file there")
