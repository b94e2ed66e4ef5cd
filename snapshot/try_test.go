package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot"
)

// works makes, changes and removes a small snapshot in the directory dir. The error says
// why the snapshotter can't be used there.
func works(dir string, with snapshot.Snapshotter) (err error) {
	s, err := snapshot.Open(dir, snapshot.Options{Snapshotter: with})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	sn, err := tryStep(s, nil, func(root string) error {
		if err := os.Mkdir(filepath.Join(root, "d"), 0o700); err != nil {
			return err
		}
		return errors.Join(os.WriteFile(filepath.Join(root, "d/old"), nil, 0o600), os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	})
	if err != nil {
		return err
	}
	sn, err = tryStep(s, sn, func(root string) error {
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
func tryStep(s *snapshot.Store, parent *snapshot.Snapshot, step func(root string) error) (*snapshot.Snapshot, error) {
	a, err := s.Prepare(context.Background(), parent)
	if err != nil {
		return nil, err
	}
	if err := step(a.Root()); err != nil {
		return nil, errors.Join(err, a.Discard())
	}
	return a.Commit()
}
