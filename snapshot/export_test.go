package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
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

// Resolvers are the ways in which the package follows the clean name of a directory:
// in layers laid over each other, and in a tree in memory that holds the links and
// directories of entries.
func Resolvers(root string, entries map[string]string) map[string]func(name string) (string, error) {
	return map[string]func(string) (string, error){
		"stack": func(name string) (string, error) {
			s := layers.New([]string{root}, owners.Disk, layers.DeviceMarks)
			defer s.Close()
			return s.Resolve(name, true)
		},
		"node": func(name string) (string, error) {
			n := newDirectory()
			for _, path := range slices.Sorted(maps.Keys(entries)) {
				parent, base := relpath.Split(path)
				kid := &node{kind: unix.S_IFREG}
				if target, link := strings.CutPrefix(entries[path], "->"); link {
					kid = &node{kind: unix.S_IFLNK, link: target}
				} else if entries[path] == "/" {
					kid = newDirectory()
				}
				n.at(parent).kids[base] = kid
			}
			at, _, err := n.resolve(name, false)
			return at, err
		},
	}
}
