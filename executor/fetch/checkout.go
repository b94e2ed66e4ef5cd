package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/object"
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

// deepestModule bounds submodules of submodules.
const deepestModule = 32

// writer writes the tree of one repository.
type writer struct {
	client  *Client
	options *Repository
	repo    *repository
	commit  *object.Commit
	tree    *object.Tree
	modules *modules
	budget  *bounded.Budget // of all that is written, with submodules
	gitDir  string          // of repo if it is kept, relative to the top of the result
	top     string          // where the tree is in the result
	depth   int
	entries []*index.Entry // what was written, where .git is kept
}

// begin sets what is written.
func (w *writer) begin(repo *repository, commit *object.Commit) (err error) {
	w.repo, w.commit = repo, commit
	if w.tree, err = repo.readTree(commit.TreeHash); err != nil {
		return err
	}
	w.modules, err = readModules(repo, w.tree)
	return err
}

// writeSubdir writes the directory that the options name into root.
func (w *writer) writeSubdir(ctx context.Context, root *os.Root) error {
	tree, at, done := w.tree, "", ""
	parts := strings.FieldsFunc(w.options.subdir(), func(r rune) bool { return r == '/' })
	for _, part := range parts {
		at = path.Join(at, part)
		done = path.Join(done, part)
		entry := find(tree, part)
		switch {
		case entry == nil:
			return fmt.Errorf("subdir %q: there is no %q", w.options.Subdir, done)
		case entry.Mode == filemode.Dir:
			var err error
			if tree, err = w.repo.readTree(entry.Hash); err != nil {
				return err
			}
		case entry.Mode == filemode.Submodule && !w.options.SkipSubmodules:
			sub, remove, err := w.module(ctx, at, entry.Hash)
			if err != nil {
				return err
			}
			defer remove()
			w, tree, at = sub, sub.tree, ""
		default:
			return fmt.Errorf("subdir %q: %q is not a directory", w.options.Subdir, done)
		}
	}
	return w.directory(ctx, root, tree, at)
}

// find returns the entry name of tree, nil if there is none. A search by path
// would take a name with a slash for two.
func find(tree *object.Tree, name string) *object.TreeEntry {
	for i := range tree.Entries {
		if tree.Entries[i].Name == name {
			return &tree.Entries[i]
		}
	}
	return nil
}

// directory writes tree, which is at rel of its repository, into root, which is
// empty: that each name is made anew keeps everything where it belongs.
func (w *writer) directory(ctx context.Context, root *os.Root, tree *object.Tree, rel string) error {
	for i := range tree.Entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry := &tree.Entries[i]
		if err := checkName(entry.Name); err != nil {
			return fmt.Errorf("invalid path %q: %w", path.Join(rel, entry.Name), err)
		}
		if err := w.entry(ctx, root, entry, path.Join(rel, entry.Name)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) entry(ctx context.Context, root *os.Root, entry *object.TreeEntry, rel string) error {
	switch entry.Mode {
	case filemode.Dir:
		tree, err := w.repo.readTree(entry.Hash)
		if err == nil {
			err = w.budget.Entry(0, len(rel))
		}
		if err != nil {
			return fmt.Errorf("%q: %w", rel, err)
		}
		return inDirectory(root, entry.Name, func(sub *os.Root) error { return w.directory(ctx, sub, tree, rel) })
	case filemode.Submodule:
		w.note(entry, rel, 0)
		return inDirectory(root, entry.Name, func(sub *os.Root) error { return w.submodule(ctx, sub, rel, entry.Hash) })
	case filemode.Regular, filemode.Deprecated, filemode.Executable, filemode.Symlink:
	default:
		return fmt.Errorf("%q: a tree can't have an entry of mode %o", rel, uint32(entry.Mode))
	}
	blob, err := object.GetBlob(w.repo, entry.Hash)
	if err == nil {
		err = w.budget.Entry(blob.Size, len(rel))
	}
	if err != nil {
		return fmt.Errorf("%q: %w", rel, err)
	}
	w.note(entry, rel, blob.Size)
	if entry.Mode == filemode.Symlink {
		return writeLink(root, entry.Name, rel, blob)
	}
	perm := os.FileMode(0o644)
	if entry.Mode == filemode.Executable {
		perm = 0o755
	}
	return writeBlob(ctx, root, entry.Name, blob, perm)
}

// note remembers an entry for the index.
func (w *writer) note(entry *object.TreeEntry, rel string, size int64) {
	if w.options.keeps() {
		mode := entry.Mode
		if mode == filemode.Deprecated {
			mode = filemode.Regular
		}
		w.entries = append(w.entries, &index.Entry{Name: rel, Hash: entry.Hash, Mode: mode, Size: uint32(size)})
	}
}

// inDirectory makes the directory name in root and calls f with it.
func inDirectory(root *os.Root, name string, f func(*os.Root) error) error {
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	sub, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := f(sub); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}

func writeBlob(ctx context.Context, root *os.Root, name string, blob *object.Blob, perm os.FileMode) (err error) {
	in, err := blob.Reader()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, &interruptible{ctx, in}); err != nil {
		return err
	}
	return out.Chmod(perm)
}

// interruptible ends with its context.
type interruptible struct {
	ctx context.Context //nolint:containedctx // of one copy, which the value stands for
	io.Reader
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func writeLink(root *os.Root, name, rel string, blob *object.Blob) error {
	if blob.Size > unix.PathMax {
		return fmt.Errorf("%q: the target of a symbolic link can't have %d bytes", rel, blob.Size)
	}
	in, err := blob.Reader()
	if err != nil {
		return err
	}
	defer in.Close()
	target, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return root.Symlink(string(target), name)
}

// hidden are the characters that HFS+ leaves out of names when it compares them.
const hidden = "\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u206a\u206b\u206c\u206d\u206e\u206f\ufeff"

// checkName refuses what git refuses: names that aren't one component of a
// path, and what some file system takes for .git.
func checkName(name string) error {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune(hidden, r) {
			return -1
		}
		return r
	}, name)
	short, _, _ := strings.Cut(plain, ":")
	short = strings.TrimRight(short, ". ")
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return errors.New("not a name")
	case strings.EqualFold(short, ".git"), strings.EqualFold(short, "git~1"):
		return errors.New("it stands for git's own directory")
	}
	return nil
}

// keep completes the repository that is left in the result, as after a clone.
func (w *writer) keep() error {
	cfg := config.NewConfig()
	cfg.Remotes["origin"] = &config.RemoteConfig{
		Name: "origin", URLs: []string{Redact(w.repo.remote)}, Fetch: []config.RefSpec{"+refs/heads/*:refs/remotes/origin/*"},
	}
	if w.top != "" {
		back := strings.Repeat("../", strings.Count(w.gitDir, "/")+1)
		cfg.Core.Worktree = back + w.top
	}
	if err := w.repo.SetConfig(cfg); err != nil {
		return err
	}
	if err := w.repo.SetReference(plumbing.NewHashReference(plumbing.HEAD, w.commit.Hash)); err != nil {
		return err
	}
	slices.SortFunc(w.entries, func(a, b *index.Entry) int { return strings.Compare(a.Name, b.Name) })
	return w.repo.SetIndex(&index.Index{Version: 2, Entries: w.entries})
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
