package snapshot

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/tree"
)

// Indexed lists the files of a snapshot as a store with the snapshotter Index knows
// them, the root included.
func (s *Store) Indexed(id string) ([]string, error) {
	indexed, ok := s.found.(*indexed)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	root, err := indexed.tree(id)
	if err != nil {
		return nil, err
	}
	var out []string
	var list func(n *tree.Node, name string)
	list = func(n *tree.Node, name string) {
		out = append(out, fmt.Sprintf("%q %06o %d:%d %d.%09d %s", name, n.Kind|n.Mode, n.UID, n.GID, n.Mtime.Sec, n.Mtime.Nsec, n.Link))
		for base, kid := range n.Kids {
			list(kid, relpath.Join(name, base))
		}
	}
	list(root, "")
	slices.Sort(out)
	return out, nil
}

// NewWriter returns what compresses as c says, without a store.
func NewWriter(c Compression, w io.Writer) (io.WriteCloser, error) { return c.newWriter(w, nil) }
