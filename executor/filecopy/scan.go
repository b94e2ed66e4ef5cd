package filecopy

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// scanner reads the directories of one source into nodes, leaving out what the
// filter excludes and what the source doesn't want.
type scanner struct {
	filter *filter
	within *within
	sel    *Selection
}

// spot is a directory being scanned.
type spot struct {
	rel   string // from the root of the tree
	below string // from the source
	info  matchInfo
	said  verdict
}

// children returns what the directory fd holds. Sockets mean nothing outside the
// host that made them and are left out.
func (s *scanner) children(ctx context.Context, fd int, at spot) ([]*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", at.rel, changed(err))
	}
	nodes := make([]*node, 0, len(names))
	for _, name := range names {
		n, err := s.child(ctx, fd, at, name)
		if err != nil {
			return nil, err
		}
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// child returns the node of name in the directory fd, nil if it isn't copied.
func (s *scanner) child(ctx context.Context, fd int, in spot, name string) (*node, error) {
	at := spot{rel: path.Join(in.rel, name), below: path.Join(in.below, name)}
	excluded, info, err := s.filter.match(at.rel, in.info)
	if err != nil {
		return nil, err
	}
	at.info = info
	if at.said, err = s.within.match(at.below, in.said); err != nil {
		return nil, err
	}
	if at.said.closed {
		return nil, nil // documented result
	}
	st, err := s.sel.tree.statat(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed since the directory was read: not in the tree
	}
	if err != nil {
		return nil, fmt.Errorf("stat %q: %w", at.rel, err)
	}
	if isDir(st.Mode) {
		if excluded && !s.filter.mayHold(at.rel) {
			return nil, nil // documented result
		}
		if s.sel.tree.leavesOut(&st, at.rel) {
			return nil, nil // documented result
		}
		return s.directory(ctx, fd, newNode(name, &st), at, excluded)
	}
	if excluded || !at.said.included {
		return nil, nil // documented result
	}
	if isSocket(st.Mode) {
		s.sel.sockets = append(s.sel.sockets, at.rel)
		return nil, nil
	}
	n := newNode(name, &st)
	s.sel.add(n)
	if isSymlink(st.Mode) {
		if n.link, err = readlinkat(fd, name); err != nil {
			return nil, fmt.Errorf("read link %q: %w", at.rel, changed(err))
		}
	}
	return n, nil
}

// directory reads the children of n. A directory that is excluded is there only
// as the parent of what a "!" pattern takes in again, one that isn't wanted as
// the parent of what is.
func (s *scanner) directory(ctx context.Context, parent int, n *node, at spot, excluded bool) (*node, error) {
	n.parentOnly = !at.said.included
	s.sel.add(n)
	fd, err := openat(parent, n.name, openDir)
	if err != nil {
		if excluded && errors.Is(err, unix.EACCES) || missing(err) {
			return nil, nil // hidden or gone: not in the tree
		}
		return nil, fmt.Errorf("open directory %q: %w", at.rel, err)
	}
	defer closeFD(fd)
	n.children, err = s.children(ctx, fd, at)
	if err != nil {
		return nil, err
	}
	if (excluded || n.parentOnly) && len(n.children) == 0 {
		return nil, nil // documented result
	}
	return n, nil
}
