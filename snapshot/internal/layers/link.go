package layers

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// LinkInto makes other names of all files of d in the directory where to is, and gives
// that the attributes of d.
func (s *Stack) LinkInto(ctx context.Context, d Dir, to *descent.Path) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	names := map[string]bool{}
	for _, layer := range d.Layers {
		fd, err := s.Open(layer, d.Path)
		if err != nil {
			return err
		}
		list, err := descent.Names(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
		list, _ = s.Marks.Split(list)
		for _, name := range list {
			names[name] = true
		}
	}
	for name := range names {
		e, ok, err := s.Lookup(d, name)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := s.linkEntry(ctx, d, name, e, to); err != nil {
			return err
		}
	}
	a, err := s.Attrs(d)
	if err != nil {
		return err
	}
	return a.Apply(to.FD(), true, s.Owners)
}

func (s *Stack) linkEntry(ctx context.Context, d Dir, name string, e Entry, to *descent.Path) error {
	if !e.Dir.Exists() {
		from, err := s.FD(e.Layer)
		if err == nil {
			err = descent.Beneath(from, relpath.Join(d.Path, name), func(dir int, rest string) error {
				return unix.Linkat(dir, rest, to.FD(), name, 0)
			})
		}
		if err != nil {
			return fmt.Errorf("link %q: %w", relpath.Join(d.Path, name), err)
		}
		return nil
	}
	if err := unix.Mkdirat(to.FD(), name, 0o700); err != nil {
		return fmt.Errorf("make directory %q: %w", e.Dir.Path, err)
	}
	if err := to.Down(name); err != nil {
		return fmt.Errorf("%q: %w", e.Dir.Path, err)
	}
	if err := s.LinkInto(ctx, e.Dir, to); err != nil {
		return err
	}
	return to.Up()
}
