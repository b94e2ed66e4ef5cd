package filecopy

import (
	"path"
	"time"
)

// SetClock has the tree take the time from now.
func (t *Tree) SetClock(now func() time.Time) { t.now = now }

// Paths returns the names in the directories of the selection, as list does.
func (s *Selection) Paths() []string {
	var out []string
	var add func(n *node, rel string)
	add = func(n *node, rel string) {
		for _, child := range n.children {
			p := path.Join(rel, child.name)
			if isDir(child.mode) {
				out = append(out, p+"/")
			} else {
				out = append(out, p)
			}
			add(child, p)
		}
	}
	for _, src := range s.sources {
		add(src.node, "")
	}
	return out
}

// Nodes returns how many files were looked at and not dismissed by their name.
func (s *Selection) Nodes() int { return s.nodes }
