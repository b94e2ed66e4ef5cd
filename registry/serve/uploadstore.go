package serve

import (
	"crypto/rand"
	"errors"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// uploadStore keeps unfinished uploads, each a file named by its ID. It is safe
// for concurrent use.
type uploadStore struct {
	root *os.Root

	mu      sync.Mutex
	uploads map[string]*upload // by ID
}

// upload is an unfinished upload.
type upload struct {
	id, repo string

	mu     sync.Mutex
	hasher digest.Digester // of the bytes so far
	size   int64
	gone   bool
}

func (u *upload) file() string { return uploadsDir + "/" + u.id }

// clear forgets what earlier servers left unfinished: nobody knows their IDs any
// more.
func (s *uploadStore) clear() error {
	dir, err := s.root.Open(uploadsDir)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.root.Remove(uploadsDir + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// begin makes an empty upload.
func (s *uploadStore) begin(repo string) (*upload, error) {
	u := &upload{id: rand.Text(), repo: repo, hasher: digest.SHA256.Digester()}
	if err := s.root.WriteFile(u.file(), nil, 0o644); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploads[u.id] = u
	return u, nil
}

// find returns nil if repo has no such upload.
func (s *uploadStore) find(repo, id string) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.uploads[id]; u != nil && u.repo == repo {
		return u
	}
	return nil
}

// drop forgets an upload, whose lock is held.
func (s *uploadStore) drop(u *upload) {
	u.gone = true
	s.mu.Lock()
	delete(s.uploads, u.id)
	s.mu.Unlock()
	_ = s.root.Remove(u.file()) // it may be a blob by now
}

// sum returns the digest of an upload. Which algorithm is wanted is known only at
// the end, so that the bytes are read again for any but the usual one.
func (s *uploadStore) sum(u *upload, a digest.Algorithm) (digest.Digest, error) {
	if a == digest.SHA256 {
		return u.hasher.Digest(), nil
	}
	f, err := s.root.Open(u.file())
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // only read
	return a.FromReader(f)
}
