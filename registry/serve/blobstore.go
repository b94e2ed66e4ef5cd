package serve

import (
	_ "crypto/sha512" // for go-digest
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// blobStore keeps each blob once, and a link to it for each repository that has
// it. It is safe for concurrent use.
type blobStore struct {
	root *os.Root

	mu sync.RWMutex // a blob and its links change together
}

func blobName(d digest.Digest) string {
	return blobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

func linksName(dir string, d digest.Digest) string {
	return dir + "/" + d.Algorithm().String() + "-" + d.Encoded()
}

func linkName(repo string, d digest.Digest) string {
	return linksName(linksDir, d) + "/" + digest.FromString(repo).Encoded()
}

// open opens a blob that repo has. Without one the error is fs.ErrNotExist.
func (b *blobStore) open(repo string, d digest.Digest) (*os.File, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if _, err := b.root.Stat(linkName(repo, d)); err != nil {
		return nil, err
	}
	return b.root.Open(blobName(d))
}

// stat returns no error if repo has the blob, and fs.ErrNotExist if it hasn't.
func (b *blobStore) stat(repo string, d digest.Digest) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	_, err := b.root.Stat(linkName(repo, d))
	if err == nil {
		_, err = b.root.Stat(blobName(d))
	}
	return err
}

// add makes the file a blob of repo.
func (b *blobStore) add(file, repo string, d digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A link to no blob counts for nothing; a blob without a link would stay for ever.
	if err := b.link(linksDir, repo, d); err != nil {
		return err
	}
	return b.root.Rename(file, blobName(d))
}

// mount gives repo a blob that the repository from has, or any if from is "".
// Without one the error is fs.ErrNotExist.
func (b *blobStore) mount(from, repo string, d digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	source := linksName(linksDir, d) // there is one as long as there is a link in it
	if from != "" {
		source = linkName(from, d)
	}
	for _, name := range []string{source, blobName(d)} {
		if _, err := b.root.Stat(name); err != nil {
			return err
		}
	}
	return b.link(linksDir, repo, d)
}

// link makes a link below dir.
func (b *blobStore) link(dir, repo string, d digest.Digest) error {
	if err := b.root.MkdirAll(linksName(dir, d), 0o755); err != nil {
		return err
	}
	return b.root.WriteFile(linksName(dir, d)+"/"+digest.FromString(repo).Encoded(), nil, 0o644)
}

// linkAll makes the first links of a directory without links, to all blobs that a
// manifest names.
func (b *blobStore) linkAll(m *manifestFile, doc *document) error {
	for _, desc := range doc.parts() {
		d, err := parseDigest(desc.Digest.String())
		if err != nil {
			continue
		}
		_, err = b.root.Stat(blobName(d))
		if err == nil {
			err = b.link(newLinksDir, m.Repository, d)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// remove takes a blob from repo. It stays in other repositories. Without one the
// error is fs.ErrNotExist.
func (b *blobStore) remove(repo string, d digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.root.Stat(linkName(repo, d)); err != nil {
		return err
	}
	dir, err := b.root.Open(linksName(linksDir, d))
	if err != nil {
		return err
	}
	links, err := dir.Readdirnames(2)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	if len(links) > 1 {
		return b.root.Remove(linkName(repo, d))
	}
	// The blob goes first: what is left of a broken removal counts for nothing.
	return errors.Join(b.root.Remove(blobName(d)), b.root.RemoveAll(linksName(linksDir, d)))
}
