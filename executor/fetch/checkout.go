package fetch

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"golang.org/x/sys/unix"
)

// Checkout writes the tree of r at the commit that Resolve returned into dir, an
// empty directory. After an error, what was written remains.
func (c *Client) Checkout(ctx context.Context, r Repository, at *Commit, dir string) error {
	if err := c.checkout(ctx, &r, at, dir); err != nil {
		return c.gitError(ctx, "fetch", r.Remote, err)
	}
	return nil
}

func (c *Client) checkout(ctx context.Context, r *Repository, at *Commit, dir string) error {
	var repo *repository
	var err error
	if r.keeps() {
		repo, err = c.openRepository(filepath.Join(dir, ".git"), r.Remote, r.Remote)
		if err == nil {
			defer repo.Close()
		}
	} else {
		var remove func()
		repo, remove, err = c.tempRepository(r.Remote, r.Remote)
		if err == nil {
			defer remove()
		}
	}
	if err != nil {
		return err
	}
	commit, err := repo.fetch(ctx, at, r.FetchByCommit)
	if err != nil {
		return err
	}
	if hash := commit.Hash.String(); !strings.HasPrefix(at.Hash, r.Checksum) && !strings.HasPrefix(hash, r.Checksum) {
		return checksumError(r.Checksum, at.Hash, hash)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	w := &writer{client: c, options: r, gitDir: ".git", budget: bounded.NewBudget(c.o.MaxSize)}
	if err := w.begin(repo, commit); err != nil {
		return err
	}
	if err := w.writeSubdir(ctx, root); err != nil {
		return err
	}
	if r.keeps() {
		if err := w.keep(); err != nil {
			return err
		}
	}
	if r.CommitTime {
		return setTimes(dir, commit.Committer.When)
	}
	return nil
}

// setTimes gives everything in dir, and dir, the time t.
func setTimes(dir string, t time.Time) error {
	var names []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	if err != nil {
		return err
	}
	at := []unix.Timespec{unix.NsecToTimespec(t.UnixNano()), unix.NsecToTimespec(t.UnixNano())}
	for _, name := range slices.Backward(names) {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, at, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "set times", Path: name, Err: err}
		}
	}
	return nil
}
