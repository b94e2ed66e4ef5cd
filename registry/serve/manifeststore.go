package serve

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// push is a manifest that is being pushed.
type push struct {
	repo      string
	digest    digest.Digest
	tags      []string
	mediaType string
	body      []byte
	document
}

// manifestFile is what is kept of a manifest, once by its digest and once by each
// tag. The file's name is a hash of repository and target: neither can become a
// path.
type manifestFile struct {
	Repository  string        `json:"repository"`
	Target      string        `json:"target"`           // tag or digest
	Digest      digest.Digest `json:"digest,omitempty"` // of a tag's manifest, if it isn't a sha256
	ContentType string        `json:"contentType"`
	Body        []byte        `json:"body"`
}

func manifestName(repo, target string) string {
	return manifestsDir + "/" + digest.FromString(repo+"\x00"+target).Encoded() + ".json"
}

// digest returns the manifest's digest. It is the target, unless that is a tag or the file
// is damaged.
func (m *manifestFile) digest() digest.Digest {
	algorithm := digest.SHA256
	if d, err := parseDigest(m.Target); err == nil {
		algorithm = d.Algorithm()
	} else if d, err := parseDigest(m.Digest.String()); err == nil {
		algorithm = d.Algorithm()
	}
	return algorithm.FromBytes(m.Body)
}

// repository is what is known of a repository without reading files.
type repository struct {
	subjects map[digest.Digest]digest.Digest // of all manifests; "" if a manifest has no subject
	tags     map[string]digest.Digest        // of manifests
}

// manifestStore keeps manifests in files and in memory what they are. It is safe
// for concurrent use.
type manifestStore struct {
	root *os.Root

	mu           sync.RWMutex           // files and memory change together
	repositories map[string]*repository // by name; an empty one had manifests since the start
}

// load reads all manifests and shows each to see, once for every name it has.
func (s *manifestStore) load(see func(*manifestFile, *document) error) error {
	dir, err := s.root.Open(manifestsDir)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	var tagged []string
	for _, name := range names {
		m, doc, err := s.read(manifestsDir + "/" + name)
		if err != nil {
			return err
		}
		if err := see(m, doc); err != nil {
			return err
		}
		d := m.digest()
		if m.Target == d.String() {
			s.enter(m, d, doc)
			continue
		}
		if !tagPattern.MatchString(m.Target) {
			return damaged(manifestsDir+"/"+name, fmt.Errorf("its manifest has the digest %s", d))
		}
		tagged = append(tagged, name)
	}
	for _, name := range tagged {
		if err := s.loadTag(manifestsDir + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// loadTag reads a tag. Its manifest may have no file of its own: that was removed
// before by digest alone.
func (s *manifestStore) loadTag(name string) error {
	m, doc, err := s.read(name)
	if err != nil {
		return err
	}
	tag, d := m.Target, m.digest()
	if !s.has(m.Repository, d) {
		m.Target, m.Digest = d.String(), ""
		if err := s.save(m); err != nil {
			return err
		}
		s.enter(m, d, doc)
	}
	s.repositories[m.Repository].tags[tag] = d
	return nil
}

func (s *manifestStore) read(name string) (*manifestFile, *document, error) {
	body, err := s.root.ReadFile(name)
	if err != nil {
		return nil, nil, err
	}
	m, doc := new(manifestFile), new(document)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, nil, damaged(name, err)
	}
	// Earlier servers took documents that don't fit. What doesn't names nothing.
	if err := json.Unmarshal(m.Body, doc); err != nil {
		doc = new(document)
	}
	return m, doc, nil
}

func damaged(name string, err error) error {
	return fmt.Errorf("%s is damaged, remove it: %w", name, err)
}

// enter notes a manifest.
func (s *manifestStore) enter(m *manifestFile, d digest.Digest, doc *document) {
	r := s.repositories[m.Repository]
	if r == nil {
		r = &repository{subjects: make(map[digest.Digest]digest.Digest), tags: make(map[string]digest.Digest)}
		s.repositories[m.Repository] = r
	}
	r.subjects[d] = doc.subject()
}

// has reports whether repo has the manifest.
func (s *manifestStore) has(repo string, d digest.Digest) bool {
	_, err := s.find(repo, d.String())
	return err == nil
}

// find returns what a tag or a digest names. Without that the error is
// fs.ErrNotExist.
func (s *manifestStore) find(repo, reference string) (digest.Digest, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lookUp(repo, reference)
}

// lookUp is find with the lock held.
func (s *manifestStore) lookUp(repo, reference string) (digest.Digest, error) {
	if r := s.repositories[repo]; r != nil {
		d, tagged := r.tags[reference]
		if !tagged {
			d = digest.Digest(reference)
		}
		if _, ok := r.subjects[d]; ok {
			return d, nil
		}
	}
	return "", fs.ErrNotExist
}

// put keeps a manifest under all of its names.
func (s *manifestStore) put(p *push) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &manifestFile{Repository: p.repo, Target: p.digest.String(), ContentType: p.mediaType, Body: p.body}
	if err := s.save(m); err != nil {
		return err
	}
	s.enter(m, p.digest, &p.document)
	if p.digest.Algorithm() != digest.SHA256 {
		m.Digest = p.digest
	}
	for _, tag := range p.tags {
		m.Target = tag
		if err := s.save(m); err != nil {
			return err
		}
		s.repositories[p.repo].tags[tag] = p.digest
	}
	return nil
}

// save writes the file in a way that survives a crash.
func (s *manifestStore) save(m *manifestFile) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	temporary := uploadsDir + "/" + rand.Text()
	f, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.root.Rename(temporary, manifestName(m.Repository, m.Target))
	}
	if err != nil {
		_ = s.root.Remove(temporary) // the first error counts
	}
	return err
}

// remove removes a tag; or a manifest, and its tags with it (distribution-spec,
// section "Deleting Manifests"). Without it the error is fs.ErrNotExist.
func (s *manifestStore) remove(repo, reference string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.lookUp(repo, reference)
	if err != nil {
		return err
	}
	r := s.repositories[repo]
	if reference != d.String() {
		return s.removeTag(repo, reference)
	}
	for tag, of := range r.tags {
		if of != d {
			continue
		}
		if err := s.removeTag(repo, tag); err != nil {
			return err
		}
	}
	if err := s.root.Remove(manifestName(repo, reference)); err != nil {
		return err
	}
	delete(r.subjects, d)
	return nil
}

func (s *manifestStore) removeTag(repo, tag string) error {
	err := s.root.Remove(manifestName(repo, tag))
	if err == nil {
		delete(s.repositories[repo].tags, tag)
	}
	return err
}
