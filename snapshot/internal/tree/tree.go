// Package tree has the files of layers as trees in memory, which are made from the entries
// of layer tars or from directories on the disk, and laid over each other.
package tree

import (
	"fmt"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// A Node is a file of a tree in memory.
type Node struct {
	file.Attrs

	Kind uint32           // the type in st_mode
	Link string           // of a symbolic link
	Kids map[string]*Node // of a directory
	Data []byte           // of a file that names accounts, as its entry has it
	Disk string           // the path of the file, if it is on this disk

	// Of a layer alone:
	gone     bool // the name is removed
	opaque   bool // the directory hides those below
	implicit bool // the directory has no entry
}

// NewDirectory returns an empty directory as no entry describes it.
func NewDirectory() *Node {
	return &Node{Attrs: file.ImplicitAttrs, Kind: unix.S_IFDIR, Kids: map[string]*Node{}}
}

// setLinked gives n the attributes of the entry of a hard link to it.
func (n *Node) setLinked(by file.Attrs) { n.Attrs = n.Linked(by, n.Kind == unix.S_IFLNK) }

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.Kind == unix.S_IFDIR }

// Child returns the entry base of a directory.
func (n *Node) Child(base string) (layers.Node, bool, bool) {
	kid := n.Kids[base]
	return kid, kid != nil && kid.IsDir(), kid != nil
}

// Attributes returns what the file has.
func (n *Node) Attributes() file.Attrs { return n.Attrs }

// Resolve returns the directory that the clean name leads to from the root n, and its
// own path. With create it makes what is missing, also where a link points to nothing;
// without, the path is where something is missing.
func (n *Node) Resolve(name string, create bool) (string, *Node, error) {
	at := &nodePlace{root: n, create: create}
	if err := pathwalk.New(pathwalk.MaxLinks).Along(name, at); err != nil {
		return at.missing, nil, err
	}
	return at.Path, n.At(at.Path), nil
}

// nodePlace is a directory of a tree in memory that a walk is in.
type nodePlace struct {
	pathwalk.Position

	root    *Node
	create  bool   // what is missing
	missing string // the path of what was missing and not made
}

func (p *nodePlace) Down(name string, _ *pathwalk.Walk) (target string, link bool, err error) {
	path := p.Join(name)
	d := p.root.At(p.Path)
	kid := d.Kids[name]
	switch {
	case kid == nil && !p.create:
		p.missing = path
		return "", false, fmt.Errorf("%s: %w", path, unix.ENOENT)
	case kid == nil:
		kid = NewDirectory()
		kid.implicit = true
		d.Kids[name] = kid
	case kid.gone:
		return "", false, layertar.ErrHidden
	case kid.Kind == unix.S_IFLNK:
		return kid.Link, true, nil
	case !kid.IsDir():
		return "", false, fmt.Errorf("%s: %w", path, unix.ENOTDIR)
	}
	p.Path = path
	return "", false, relpath.CheckLength(path)
}

// At returns the file at path itself, nil if there is none.
func (n *Node) At(path string) *Node {
	if path == "" {
		return n
	}
	for element := range strings.SplitSeq(path, "/") {
		if n = n.Kids[element]; n == nil {
			return nil
		}
	}
	return n
}
