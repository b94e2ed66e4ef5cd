package fetch

import (
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/config"
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
