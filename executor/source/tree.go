package source

import (
	"context"
	"path/filepath"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
)

// View returns the files of r. They are mounted until the sources are closed.
func (s *Sources) View(ctx context.Context, r *RootFS) (*Tree, error) {
	return s.views.Get(ctx, r, func(ctx context.Context) (*Tree, error) {
		snap, err := r.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		v, err := s.Store.View(ctx, snap)
		if err != nil {
			return nil, err
		}
		s.onClose(v.Close)
		t, err := s.openTree(v.Root(), nil)
		if err == nil {
			t.Keep(s.Store.Owners())
		}
		return t, err
	})
}

// Directory returns the files of a directory of this machine, without what the patterns of
// a .dockerignore leave out.
func (s *Sources) Directory(ctx context.Context, dir string, ignore []string) (*Tree, error) {
	key := recipe.Key("directory", append([]string{dir}, ignore...)...)
	return s.dirs.Get(ctx, key, func(context.Context) (*Tree, error) {
		t, err := s.openTree(dir, ignore)
		if err != nil || s.Store.Holds(dir) { // the latter is another one each time
			return t, err
		}
		t.LeaveOut(s.LeaveOut, func(rel string) {
			s.Progress.Warn(rel + ": bob's own cache directory is left out of the context")
		})
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		sums := readSums(s.Store, recipe.Key("sums", dir))
		t.Remember(sums)
		s.onClose(sums.save)
		return t, nil
	})
}

// openTree opens dir until the sources are closed.
func (s *Sources) openTree(dir string, ignore []string) (*Tree, error) {
	tree, err := filecopy.OpenDir(dir, ignore)
	if err != nil {
		return nil, err
	}
	s.onClose(tree.Close)
	return &Tree{Tree: tree, Root: dir}, nil
}
