package registry

import (
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// blobLedger holds what a client knows about blobs and about repositories that accept
// pushes. It is safe for concurrent use.
type blobLedger struct {
	mu     sync.Mutex
	blobs  map[blobKey]*blobEntry
	probed map[string]bool // repositories that may be pushed to
}

func newBlobLedger() *blobLedger {
	return &blobLedger{blobs: make(map[blobKey]*blobEntry), probed: make(map[string]bool)}
}

// blobKey is a blob on a registry, whatever its repository.
type blobKey struct {
	host   string
	digest digest.Digest
}

// blobEntry is what is known of one blob.
type blobEntry struct {
	seen   []name.Repository   // an image there names it, so that it may be mounted from there
	stored map[string]bool     // repositories that have it for sure
	named  map[string]bool     // repositories with an image that names it, which should have it
	broken map[string]*url.URL // streamed uploads of it, by repository, that may be resumed
	gate   *semaphore.Weighted // held while the blob is brought to a repository

	spoiled int // how often it was damaged since it last arrived whole
}

// blob returns the entry of a blob. k.mu is held.
func (k *blobLedger) blob(repo name.Repository, d digest.Digest) *blobEntry {
	key := blobKey{repo.RegistryStr(), d}
	e := k.blobs[key]
	if e == nil {
		e = &blobEntry{stored: make(map[string]bool), named: make(map[string]bool), broken: make(map[string]*url.URL), gate: semaphore.NewWeighted(1)}
		k.blobs[key] = e
	}
	return e
}

// seen notes that a repository should have a blob.
func (k *blobLedger) seen(repo name.Repository, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	e.seen = append(e.seen, repo)
}

// note notes that a repository has a blob.
func (k *blobLedger) note(repo name.Repository, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	if !e.stored[repo.RepositoryStr()] {
		e.stored[repo.RepositoryStr()] = true
		e.seen = append([]name.Repository{repo}, e.seen...)
	}
}

// learn notes that an image in a repository names a blob.
func (k *blobLedger) learn(repo name.Repository, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	e.named[repo.RepositoryStr()] = true
	e.seen = append([]name.Repository{repo}, e.seen...)
}

// learned reports whether anything was learned of a repository.
func (k *blobLedger) learned(repo name.Repository) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, e := range k.blobs {
		if key.host == repo.RegistryStr() && e.named[repo.RepositoryStr()] {
			return true
		}
	}
	return false
}

// forget forgets what was learned of a repository. It reports whether that was anything.
func (k *blobLedger) forget(repo name.Repository) (something bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, e := range k.blobs {
		if key.host == repo.RegistryStr() && e.named[repo.RepositoryStr()] {
			delete(e.named, repo.RepositoryStr())
			something = true
		}
	}
	return something
}

// has says whether a repository has a blob, or should have it.
func (k *blobLedger) has(repo name.Repository, d digest.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	return e.stored[repo.RepositoryStr()] || e.named[repo.RepositoryStr()]
}

// origin returns the likeliest other repository of the same registry from which a blob
// may be mounted.
func (k *blobLedger) origin(repo name.Repository, d digest.Digest) (from name.Repository, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.blob(repo, d).seen {
		if r.RepositoryStr() != repo.RepositoryStr() {
			return r, true
		}
	}
	return from, false
}

// bringing returns the lock to hold while a blob is brought to a repository. Whoever
// waits for it then finds the blob there, or mounts it.
func (k *blobLedger) bringing(repo name.Repository, d digest.Digest) *semaphore.Weighted {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blob(repo, d).gate
}

// spoil notes that a blob arrived damaged, and returns how often this happened in a
// row.
func (k *blobLedger) spoil(repo name.Repository, d digest.Digest) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	e.spoiled++
	return e.spoiled
}

// spoiled returns how often in a row a blob arrived damaged.
func (k *blobLedger) spoiled(repo name.Repository, d digest.Digest) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blob(repo, d).spoiled
}

// arrived notes that a blob arrived whole.
func (k *blobLedger) arrived(repo name.Repository, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blob(repo, d).spoiled = 0
}

// leave keeps a broken streamed upload of a blob.
func (k *blobLedger) leave(repo name.Repository, d digest.Digest, location *url.URL) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blob(repo, d).broken[repo.RepositoryStr()] = location
}

// takeBroken returns a broken streamed upload of a blob, once. It returns nil if there
// is no such upload.
func (k *blobLedger) takeBroken(repo name.Repository, d digest.Digest) *url.URL {
	k.mu.Lock()
	defer k.mu.Unlock()
	broken := k.blob(repo, d).broken
	location := broken[repo.RepositoryStr()]
	delete(broken, repo.RepositoryStr())
	return location
}

// mayPush reports whether a repository is known to accept pushes.
func (k *blobLedger) mayPush(repo name.Repository) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.probed[repo.Name()]
}

// takesPushes notes that a repository accepts pushes.
func (k *blobLedger) takesPushes(repo name.Repository) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probed[repo.Name()] = true
}
