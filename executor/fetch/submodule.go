package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// maxModules is how large .gitmodules may be, in bytes.
const maxModules = 1 << 20

// modules are the submodules that a tree declares, by path.
type modules struct {
	byPath map[string]*config.Submodule
}

// readModules reads .gitmodules, if tree has it as a file: git doesn't follow a
// link there either.
func readModules(repo *repository, tree *object.Tree) (*modules, error) {
	m := &modules{byPath: make(map[string]*config.Submodule)}
	entry := find(tree, ".gitmodules")
	if entry == nil || (entry.Mode != filemode.Regular && entry.Mode != filemode.Executable && entry.Mode != filemode.Deprecated) {
		return m, nil
	}
	blob, err := object.GetBlob(repo, entry.Hash)
	if err != nil {
		return nil, err
	}
	if blob.Size > maxModules {
		return nil, fmt.Errorf(".gitmodules: larger than %d bytes", maxModules)
	}
	in, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	read := config.NewModules()
	if err := read.Unmarshal(text); err != nil {
		return nil, fmt.Errorf(".gitmodules: %w", err)
	}
	for _, s := range read.Submodules {
		m.byPath[path.Clean(s.Path)] = s
	}
	return m, nil
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

// resolveURL returns the address that the url of .gitmodules stands for; one
// that begins with ./ or ../ is relative to the repository with the submodule.
func resolveURL(remote, url string) (string, error) {
	if !strings.HasPrefix(url, "./") && !strings.HasPrefix(url, "../") {
		return url, nil
	}
	base, rest := strings.TrimRight(remote, "/"), url
	host := 0
	if i := strings.Index(base, "://"); i >= 0 {
		host = i + len("://")
	}
	for {
		if r, ok := strings.CutPrefix(rest, "./"); ok {
			rest = r
			continue
		}
		r, ok := strings.CutPrefix(rest, "../")
		if !ok {
			break
		}
		rest = r
		i := strings.LastIndexByte(base, '/')
		if i <= host && host == 0 {
			i = strings.LastIndexByte(base, ':') + 1 // user@host:path
			if i == len(base) {
				i = 0
			}
		}
		if i <= host {
			return "", fmt.Errorf("its url %q leads out of %s", url, Redact(remote))
		}
		base = base[:i]
	}
	if strings.HasSuffix(base, ":") {
		return base + rest, nil
	}
	return base + "/" + rest, nil
}
