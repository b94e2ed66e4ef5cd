package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// streamed is the size in bytes from which on an object is copied to the disk
// without being held in memory.
const streamed = 4 << 20

// scratchRef is the name that a commit fetched by its hash has meanwhile.
const scratchRef = "refs/bob/fetched"

// CommitTime returns the committer's time of what r's Ref stands for.
func (c *Client) CommitTime(ctx context.Context, r Repository) (time.Time, error) {
	at, err := c.Resolve(ctx, r)
	if err != nil {
		return time.Time{}, err
	}
	repo, remove, err := c.tempRepository(r.Remote, r.Remote)
	if err != nil {
		return time.Time{}, err
	}
	defer remove()
	commit, err := repo.fetch(ctx, at, r.FetchByCommit)
	if err != nil {
		return time.Time{}, c.gitError(ctx, "fetch", r.Remote, err)
	}
	return commit.Committer.When, nil
}

// repository is one that is being fetched, on the disk.
type repository struct {
	*filesystem.Storage

	client *Client
	remote string // where it comes from
	main   string // remote that the secrets are for
	dir    string // of its objects
}

// openRepository makes an empty repository in dir.
func (c *Client) openRepository(dir, main, remote string) (*repository, error) {
	st := filesystem.NewStorageWithOptions(osfs.New(dir, osfs.WithBoundOS()), cache.NewObjectLRUDefault(),
		filesystem.Options{LargeObjectThreshold: streamed})
	if err := st.Init(); err != nil {
		return nil, err
	}
	// git takes a directory without HEAD for no repository.
	head := plumbing.NewSymbolicReference(plumbing.HEAD, plumbing.Master)
	if err := st.SetReference(head); err != nil {
		return nil, err
	}
	return &repository{Storage: st, client: c, remote: remote, main: main, dir: dir}, nil
}

// fetch gets the commit at, and what is needed of its history to do so, and
// returns it.
func (r *repository) fetch(ctx context.Context, at *Commit, byHash bool) (*object.Commit, error) {
	var err error
	if at.Ref == "" || byHash {
		err = r.fetchHash(ctx, at.Hash)
	} else if err = r.pull(ctx, at.Ref, at.Ref, 1); err == nil && !r.has(at.Hash) {
		// The reference has moved on since it was asked for.
		err = r.fetchHash(ctx, at.Hash)
	}
	if err != nil {
		return nil, err
	}
	if at.Ref != "" {
		ref := plumbing.NewHashReference(plumbing.ReferenceName(at.Ref), plumbing.NewHash(at.Hash))
		if err := r.SetReference(ref); err != nil {
			return nil, err
		}
	}
	return r.peel(plumbing.NewHash(at.Hash))
}

// pull fetches the reference or hash src as dst. depth 0 is the whole history.
func (r *repository) pull(ctx context.Context, src, dst string, depth int) error {
	return r.pullAll(ctx, []config.RefSpec{config.RefSpec("+" + src + ":" + dst)}, depth)
}

func (r *repository) pullAll(ctx context.Context, specs []config.RefSpec, depth int) error {
	auth, address, err := r.client.auth(ctx, r.main, r.remote)
	if err != nil {
		return err
	}
	for i, s := range specs {
		if s.IsExactSHA1() {
			continue
		}
		if err := s.Validate(); err != nil {
			return fmt.Errorf("reference %s: %w", specs[i].Src(), err)
		}
	}
	_, err = askGit(ctx, r.client, r.remote, func(ctx context.Context, dog *patience.Watchdog) (none struct{}, err error) {
		rem := git.NewRemote(&watchedRepository{r, dog}, &config.RemoteConfig{Name: "origin", URLs: []string{address}})
		err = rem.FetchContext(listed(ctx, address, dog), &git.FetchOptions{
			RefSpecs: specs, Depth: depth, Auth: auth, Tags: git.NoTags, Force: true, CABundle: r.client.o.CABundle, Progress: heard{dog},
		})
		if errors.Is(err, git.NoErrAlreadyUpToDate) {
			err = nil
		}
		return none, err
	})
	return err
}

// fetchHash gets a commit that only its hash is known of: alone where the
// server gives it so, with the reference that is at it, or with everything.
func (r *repository) fetchHash(ctx context.Context, hash string) error {
	err := r.pullAll(ctx, []config.RefSpec{config.RefSpec(hash + ":" + scratchRef)}, 1)
	defer func() { _ = r.RemoveReference(scratchRef) }() // it may not be there
	if err == nil && r.has(hash) {
		return nil
	}
	if errors.Is(err, transport.ErrAuthenticationRequired) || errors.Is(err, transport.ErrAuthorizationFailed) ||
		errors.Is(err, transport.ErrRepositoryNotFound) || ctx.Err() != nil {
		return err
	}
	refs, listErr := r.client.list(ctx, r.remote)
	if listErr != nil {
		return errors.Join(err, listErr)
	}
	for name, ref := range refs {
		if ref.Hash().String() == hash && len(name) > len("refs/") && name[:len("refs/")] == "refs/" && name[len(name)-1] != '}' {
			if err := r.pull(ctx, name, scratchRef, 1); err == nil && r.has(hash) {
				return nil
			}
		}
	}
	all := []config.RefSpec{"+refs/heads/*:refs/bob/heads/*", "+refs/tags/*:refs/bob/tags/*"}
	if err := r.pullAll(ctx, all, 0); err != nil {
		return err
	}
	if err := r.forget("refs/bob/"); err != nil {
		return err
	}
	if !r.has(hash) {
		return fmt.Errorf("it does not contain commit %s", hash)
	}
	return nil
}

// forget removes the references whose names begin with prefix.
func (r *repository) forget(prefix string) error {
	refs, err := r.IterReferences()
	if err != nil {
		return err
	}
	var names []plumbing.ReferenceName
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if n := ref.Name(); len(n) > len(prefix) && n[:len(prefix)] == plumbing.ReferenceName(prefix) {
			names = append(names, n)
		}
		return nil
	})
	for _, n := range names {
		err = errors.Join(err, r.RemoveReference(n))
	}
	return err
}

func (r *repository) has(hash string) bool {
	return r.HasEncodedObject(plumbing.NewHash(hash)) == nil
}

// maxObject bounds a commit, a tag or a tree, which are held in memory, in bytes. A
// directory of a million files takes some 50 MiB.
const maxObject = 128 << 20

// checkSize refuses an object that is too large to be read at once.
func (r *repository) checkSize(hash plumbing.Hash) error {
	n, err := r.EncodedObjectSize(hash)
	if err == nil && n > maxObject {
		err = fmt.Errorf("object %s has %d bytes, more than the %d MiB that one other than a file may have", hash, n, maxObject>>20)
	}
	return err
}

// readTree returns the tree hash.
func (r *repository) readTree(hash plumbing.Hash) (*object.Tree, error) {
	if err := r.checkSize(hash); err != nil {
		return nil, err
	}
	return object.GetTree(r, hash)
}

// PackfileWriter implements storer.PackfileWriter: what the remote sends is bounded, as
// what is made of it.
func (r *repository) PackfileWriter() (io.WriteCloser, error) {
	w, err := r.Storage.PackfileWriter()
	if err != nil {
		return nil, err
	}
	return &packWriter{w, bounded.NewBudget(r.client.o.MaxSize)}, nil
}

type packWriter struct {
	io.WriteCloser

	budget *bounded.Budget
}

func (w *packWriter) Write(p []byte) (int, error) {
	if err := w.budget.Bytes(len(p)); err != nil {
		return 0, err
	}
	return w.WriteCloser.Write(p)
}

// A watchedRepository notes the bytes of packs that come.
type watchedRepository struct {
	*repository

	dog *patience.Watchdog
}

// PackfileWriter implements storer.PackfileWriter.
func (r *watchedRepository) PackfileWriter() (io.WriteCloser, error) {
	w, err := r.repository.PackfileWriter()
	if err != nil {
		return nil, err
	}
	r.dog.Allow(1)
	return &watchedPack{w, r.dog}, nil
}

type watchedPack struct {
	io.WriteCloser

	dog *patience.Watchdog
}

// Write implements io.Writer.
func (p *watchedPack) Write(b []byte) (int, error) {
	p.dog.Sleep() // the disk isn't the server's
	n, err := p.WriteCloser.Write(b)
	p.dog.Wake()
	return n, err
}

// Close implements io.Closer. It makes the pack's index, which takes its time.
func (p *watchedPack) Close() error {
	p.dog.Sleep()
	return p.WriteCloser.Close()
}

// peel returns the commit that the object hash is or, as a tag, leads to.
func (r *repository) peel(hash plumbing.Hash) (*object.Commit, error) {
	const deepest = 16 // tags of tags
	for range deepest {
		if err := r.checkSize(hash); err != nil && !errors.Is(err, plumbing.ErrObjectNotFound) {
			return nil, err
		}
		tag, err := object.GetTag(r, hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		hash = tag.Target
	}
	commit, err := object.GetCommit(r, hash)
	if err != nil {
		return nil, fmt.Errorf("object %s: not a commit: %w", hash, err)
	}
	return commit, nil
}

// tempRepository makes a repository that the returned function removes.
func (c *Client) tempRepository(main, remote string) (*repository, func(), error) {
	dir, err := os.MkdirTemp(c.o.TempDir, "git-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	r, err := c.openRepository(dir, main, remote)
	if err != nil {
		remove()
		return nil, nil, err
	}
	return r, func() {
		_ = r.Close() // only read
		remove()
	}, nil
}
