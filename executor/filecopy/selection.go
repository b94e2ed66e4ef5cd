package filecopy

import "sync/atomic"

// Selection is what one Source stands for, as it was when Select read it. It is
// immutable, safe for concurrent use, and valid until its tree is closed.
type Selection struct {
	tree    *Tree
	of      Source
	sources []*source
	sockets []string
	nodes   int
	known   atomic.Pointer[[]Sum] // of the nodes, as Digest found them last
	names   map[inode]int         // names in the selection, of files that have several
}

// A Source names what is copied: a file, or the contents of a directory.
type Source struct {
	// Path is relative to the root of the tree and confined to it ("../x" is
	// "x"). It may be a wildcard in the syntax of path.Match, whose "*" and "?"
	// never match a slash, and then stands for any number of files and
	// directories.
	Path string
	// Parents, if not "", is a pattern in the syntax of .dockerignore, relative
	// to Path: only what matches it is copied of a directory, together with its
	// parent directories below Path (COPY --parents).
	Parents string
	// Required says that Path/Parents, which hold no wildcard, must exist.
	Required bool
	// Exclude are patterns in the syntax of .dockerignore, relative to Path, of
	// what is left out of a directory (COPY --exclude).
	Exclude []string
	// Itself says that a directory is copied itself, not only its contents: a
	// missing destination that isn't written with a "/" at its end gets its
	// owner, mode and attributes (ADD of a repository).
	Itself bool
}

// source is one file, or one directory whose contents are meant.
type source struct {
	name string // what a file is called in a destination directory
	rel  string // canonical path in the tree
	node *node
}

// add gives n its place.
func (s *Selection) add(n *node) {
	n.id = s.nodes
	s.nodes++
	if n.manyLinks {
		s.names[n.inode()]++
	}
}

// Sockets returns the sockets that were left out, as paths in the tree.
func (s *Selection) Sockets() []string { return s.sockets }

// Sources returns the number of files and directories that the source stands
// for, before directories are descended into. With 0, a wildcard matched nothing
// and CopyTo does nothing.
func (s *Selection) Sources() int { return len(s.sources) }
