package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Try makes, changes and removes a small snapshot in the directory dir, which it
// makes if it isn't there. The error says why the snapshotter can't be used for a
// store in dir.
func Try(dir string, with Snapshotter) error {
	if err := try(dir, with); err != nil {
		return fmt.Errorf("try snapshotter %s in %s: %w", with, dir, err)
	}
	return nil
}

func try(dir string, with Snapshotter) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".try-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	s, err := Open(tmp, Options{Snapshotter: with})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	sn, err := s.tryStep(nil, func(root string) error {
		if err := os.Mkdir(filepath.Join(root, "d"), 0o700); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(filepath.Join(root, "d/old"), nil, 0o600), os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	})
	if err != nil {
		return err
	}
	sn, err = s.tryStep(sn, func(root string) error {
		return errors.Join(os.Remove(filepath.Join(root, "file")), os.RemoveAll(filepath.Join(root, "d")), os.Mkdir(filepath.Join(root, "d"), 0o700))
	})
	if err != nil {
		return err
	}
	v, err := s.View(context.Background(), sn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	for _, name := range []string{"file", "d/old"} {
		if _, err := os.Lstat(filepath.Join(v.Root(), name)); err == nil {
			return fmt.Errorf("%s, which was removed, is there again", name)
		}
	}
	_, err = os.Lstat(filepath.Join(v.Root(), "d"))
	return err
}

// tryStep commits what step does to a snapshot.
func (s *Store) tryStep(parent *Snapshot, step func(root string) error) (*Snapshot, error) {
	a, err := s.Prepare(context.Background(), parent)
	if err != nil {
		return nil, err
	}
	if err := step(a.Root()); err != nil {
		return nil, errors.Join(err, a.Discard())
	}
	return a.Commit()
}
