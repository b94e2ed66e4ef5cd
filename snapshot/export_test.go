package snapshot

import (
	"fmt"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/relpath"
)

// Indexed lists the files of a snapshot as a store with the snapshotter Index knows
// them, the root included.
func (s *Store) Indexed(id string) ([]string, error) {
	root, err := s.nodes(id)
	if err != nil {
		return nil, err
	}
	var out []string
	var list func(n *node, name string)
	list = func(n *node, name string) {
		out = append(out, fmt.Sprintf("%q %06o %d:%d %d.%09d %s", name, n.kind|n.Mode, n.UID, n.GID, n.Mtime.Sec, n.Mtime.Nsec, n.link))
		for base, kid := range n.kids {
			list(kid, relpath.Join(name, base))
		}
	}
	list(root, "")
	slices.Sort(out)
	return out, nil
}
