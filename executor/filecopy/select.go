package filecopy

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Select finds what src stands for. A path that names a symbolic link stands for
// its target, resolved as if the tree's root were "/"; links found inside a
// directory stay links. A path that isn't there is a *NotFoundError; a wildcard
// without matches is no error (see Sources).
func (t *Tree) Select(ctx context.Context, src Source) (*Selection, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Selection{tree: t, of: src, names: make(map[inode]int)}
	if err := s.find(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// find adds all that the source stands for.
func (s *Selection) find(ctx context.Context) error {
	within, err := newWithin(s.of)
	if err != nil {
		return fmt.Errorf("select %q: %w", s.of.Path, err)
	}
	clean := path.Join("/", s.of.Path)[1:]
	if !isWildcard(clean) {
		if err := s.take(ctx, clean, within); err != nil || !s.of.Required || s.of.Parents == "" {
			return err
		}
		return s.require()
	}
	matches, err := s.tree.glob(ctx, clean)
	if err != nil {
		return withSource(err, s.of.Path)
	}
	for _, m := range matches {
		if s.of.Parents != "" && !s.tree.isDir(m) {
			continue // there is nothing below it
		}
		if err := s.take(ctx, m, within); err != nil {
			return err
		}
	}
	return nil
}

// isDir reports whether p leads to a directory.
func (t *Tree) isDir(p string) bool {
	at, err := t.find(p)
	if err != nil {
		return true // take says what is wrong
	}
	closeFD(at.dir)
	return isDir(at.st.Mode)
}

// require finds out whether what is named was selected, and why not.
func (s *Selection) require() error {
	n := s.sources[len(s.sources)-1].node
	for name := range strings.SplitSeq(path.Clean(s.of.Parents), "/") {
		i := slices.IndexFunc(n.children, func(n *node) bool { return n.name == name })
		if i < 0 {
			return s.unselected()
		}
		n = n.children[i]
	}
	return nil
}

// unselected returns the error for a source with parents that wasn't found.
func (s *Selection) unselected() error {
	e := &NotFoundError{Source: path.Join(s.of.Path, s.of.Parents)}
	if s.of.Parents == "." {
		return fmt.Errorf("%w: behind /./ there must be a path", e)
	}
	at, err := s.tree.find(e.Source)
	if err != nil {
		return withSource(err, e.Source)
	}
	closeFD(at.dir)
	if isSocket(at.st.Mode) {
		return fmt.Errorf("select %q: a socket can't be copied", e.Source)
	}
	if at.rel != path.Join("/", e.Source)[1:] {
		return fmt.Errorf("%w: --parents follows no symbolic link, and only %q exists", e, at.rel)
	}
	return fmt.Errorf("%w: --exclude leaves it out", e)
}

// take adds what the path p leads to.
func (s *Selection) take(ctx context.Context, p string, w *within) error {
	at, err := s.tree.find(p)
	if err != nil {
		if isWildcard(s.of.Path) {
			return fmt.Errorf("select %q: %w", s.of.Path, withSource(err, p))
		}
		return withSource(err, s.of.Path)
	}
	defer closeFD(at.dir)
	if isSocket(at.st.Mode) {
		return fmt.Errorf("select %q: a socket can't be copied", s.of.Path)
	}
	n := newNode(path.Base(at.rel), &at.st)
	s.add(n)
	if isDir(at.st.Mode) {
		fd, err := openat(at.dir, ".", openDir)
		if err != nil {
			return fmt.Errorf("open %q: %w", at.rel, changed(err))
		}
		defer closeFD(fd)
		scan := &scanner{filter: s.tree.filter, within: w, sel: s}
		if n.children, err = scan.children(ctx, fd, spot{rel: at.rel, info: at.info}); err != nil {
			return fmt.Errorf("select %q: %w", s.of.Path, err)
		}
		if at.excluded && len(n.children) == 0 {
			return &NotFoundError{Source: s.of.Path, Excluded: s.tree.filter.culprit(at.rel)}
		}
	}
	s.sources = append(s.sources, &source{name: path.Base(p), rel: at.rel, node: n})
	return nil
}

func isWildcard(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// glob returns the paths that match pattern, in the order of a walk. Links in
// the part before the first wildcard are followed; behind it only real
// directories are descended into.
func (t *Tree) glob(ctx context.Context, pattern string) ([]string, error) {
	parts := strings.Split(pattern, "/")
	first := 0
	for !isWildcard(parts[first]) {
		first++
	}
	for _, part := range parts[first:] {
		if _, err := path.Match(part, ""); err != nil {
			return nil, err
		}
	}
	at, err := t.find(path.Join(parts[:first]...))
	if err != nil {
		return nil, err
	}
	defer closeFD(at.dir)
	if !isDir(at.st.Mode) {
		return nil, nil
	}
	return t.globIn(ctx, &at, parts[first:])
}

func (t *Tree) globIn(ctx context.Context, dir *found, parts []string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := openat(dir.dir, ".", openDir)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", dir.rel, err)
	}
	defer closeFD(fd)
	names, err := readNames(fd)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", dir.rel, err)
	}
	var out []string
	for _, name := range names {
		if ok, err := path.Match(parts[0], name); err != nil || !ok {
			continue
		}
		more, err := t.globName(ctx, dir, fd, name, parts[1:])
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// globName returns the matches at name, which matched, or below it.
func (t *Tree) globName(ctx context.Context, dir *found, fd int, name string, parts []string) ([]string, error) {
	at := found{rel: path.Join(dir.rel, name)}
	var err error
	if at.excluded, at.info, err = t.filter.match(at.rel, dir.info); err != nil {
		return nil, err
	}
	if at.st, err = t.statat(fd, name); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, fmt.Errorf("stat %q: %w", at.rel, err)
	}
	if isSocket(at.st.Mode) {
		return nil, nil
	}
	if at.excluded && (!isDir(at.st.Mode) || !t.filter.mayHold(at.rel)) {
		return nil, nil
	}
	if isDir(at.st.Mode) && t.leavesOut(&at.st, at.rel) {
		return nil, nil
	}
	if len(parts) == 0 && !at.excluded {
		return []string{at.rel}, nil
	}
	if !isDir(at.st.Mode) {
		return nil, nil
	}
	if at.dir, err = openat(fd, name, openDir); err != nil {
		return nil, fmt.Errorf("open %q: %w", at.rel, err)
	}
	defer closeFD(at.dir)
	if len(parts) > 0 {
		return t.globIn(ctx, &at, parts)
	}
	// An excluded directory is there if something in it is.
	scan := &scanner{filter: t.filter, within: &within{}, sel: &Selection{tree: t, names: make(map[inode]int)}}
	inside, err := scan.children(ctx, at.dir, spot{rel: at.rel, info: at.info})
	if err != nil || len(inside) == 0 {
		return nil, err
	}
	return []string{at.rel}, nil
}
