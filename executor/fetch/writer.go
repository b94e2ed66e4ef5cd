package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
	"github.com/go-git/go-git/v5/plumbing/object"
)

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

// submodule writes the tree of the submodule at rel into root.
func (w *writer) submodule(ctx context.Context, root *os.Root, rel string, hash plumbing.Hash) error {
	if w.options.SkipSubmodules {
		return nil
	}
	sub, remove, err := w.module(ctx, rel, hash)
	if err != nil {
		return err
	}
	defer remove()
	if err := sub.directory(ctx, root, sub.tree, ""); err != nil {
		return fmt.Errorf("submodule %q: %w", rel, err)
	}
	if !w.options.keeps() {
		return nil
	}
	if err := sub.keep(); err != nil {
		return fmt.Errorf("submodule %q: %w", rel, err)
	}
	back := strings.Repeat("../", strings.Count(sub.top, "/")+1)
	return root.WriteFile(".git", []byte("gitdir: "+back+sub.gitDir+"\n"), 0o644)
}

// module fetches the submodule at rel and returns what writes it, and a function
// that removes what isn't part of the result.
func (w *writer) module(ctx context.Context, rel string, hash plumbing.Hash) (*writer, func(), error) {
	fail := func(err error) (*writer, func(), error) { return nil, nil, fmt.Errorf("submodule %q: %w", rel, err) }
	if w.depth == deepestModule {
		return fail(fmt.Errorf("submodules nested more than %d deep", deepestModule))
	}
	s := w.modules.byPath[rel]
	if s == nil || s.URL == "" {
		return fail(errors.New("no url found for it in .gitmodules"))
	}
	if err := s.Validate(); err != nil {
		return fail(err)
	}
	remote, err := resolveURL(w.repo.remote, s.URL)
	if err != nil {
		return fail(err)
	}
	if err := checkRemote(remote); err != nil {
		return fail(fmt.Errorf("%s: %w", Redact(remote), err))
	}
	sub := &writer{client: w.client, options: w.options, depth: w.depth + 1, top: path.Join(w.top, rel), budget: w.budget}
	repo, remove, err := w.moduleRepository(sub, s.Name, remote)
	if err != nil {
		return fail(err)
	}
	commit, err := repo.fetch(ctx, &Commit{Hash: hash.String()}, true)
	if err == nil {
		err = sub.begin(repo, commit)
	}
	if err != nil {
		remove()
		return fail(fmt.Errorf("fetch %s: %w", Redact(remote), bare(err)))
	}
	return sub, remove, nil
}

// moduleRepository makes the repository of the submodule called name: where git
// has it if .git is kept, and else for the time being.
func (w *writer) moduleRepository(sub *writer, name, remote string) (*repository, func(), error) {
	if !w.options.keeps() {
		return w.client.tempRepository(w.repo.main, remote)
	}
	sub.gitDir = path.Join(w.gitDir, "modules", name)
	dir := filepath.Join(w.repo.dir, "modules", filepath.FromSlash(name))
	repo, err := w.client.openRepository(dir, w.repo.main, remote)
	if err != nil {
		return nil, nil, err
	}
	return repo, func() { _ = repo.Close() }, nil // only read by then
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
