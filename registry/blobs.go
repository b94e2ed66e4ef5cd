package registry

import (
	"net/url"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// blobLedger is what a client has found out of blobs, and of who takes them. It is safe
// for concurrent use.
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

// blobEntry is what is known of one.
type blobEntry struct {
	seen   []name.Repository   // an image there names it: it may be mounted from
	stored map[string]bool     // repositories that have it for sure
	broken map[string]*url.URL // streamed uploads of it, by repository, that may be gone on with
	gate   *semaphore.Weighted // held by who brings it to a repository

	spoiled int // how often it came with other bytes than it should have, since it came right
}

// blob returns the entry of a blob. k.mu is held.
func (k *blobLedger) blob(repo name.Repository, d digest.Digest) *blobEntry {
	key := blobKey{repo.RegistryStr(), d}
	e := k.blobs[key]
	if e == nil {
		e = &blobEntry{stored: make(map[string]bool), broken: make(map[string]*url.URL), gate: semaphore.NewWeighted(1)}
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

// has says whether a repository has a blob for sure.
func (k *blobLedger) has(repo name.Repository, d digest.Digest) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blob(repo, d).stored[repo.RepositoryStr()]
}

// origin returns another repository of the same registry that a blob may be mounted
// from, the likeliest one.
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

// bringing is held by whoever brings a blob to a repository: the next one finds it
// there, or mounts it.
func (k *blobLedger) bringing(repo name.Repository, d digest.Digest) *semaphore.Weighted {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blob(repo, d).gate
}

// spoil notes that a blob came with other bytes than it should have, and returns how
// often that was so in a row.
func (k *blobLedger) spoil(repo name.Repository, d digest.Digest) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.blob(repo, d)
	e.spoiled++
	return e.spoiled
}

// spoiled returns how often a blob came with other bytes than it should have.
func (k *blobLedger) spoiled(repo name.Repository, d digest.Digest) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blob(repo, d).spoiled
}

// arrived notes that a blob came as it should.
func (k *blobLedger) arrived(repo name.Repository, d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blob(repo, d).spoiled = 0
}

// leave keeps the streamed upload of a blob that broke.
func (k *blobLedger) leave(repo name.Repository, d digest.Digest, location *url.URL) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.blob(repo, d).broken[repo.RepositoryStr()] = location
}

// takeBroken returns the streamed upload of a blob that broke, once; nil if there
// was none.
func (k *blobLedger) takeBroken(repo name.Repository, d digest.Digest) *url.URL {
	k.mu.Lock()
	defer k.mu.Unlock()
	broken := k.blob(repo, d).broken
	location := broken[repo.RepositoryStr()]
	delete(broken, repo.RepositoryStr())
	return location
}

// mayPush says whether a repository was found to take pushes.
func (k *blobLedger) mayPush(repo name.Repository) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.probed[repo.Name()]
}

// takesPushes notes that a repository does.
func (k *blobLedger) takesPushes(repo name.Repository) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.probed[repo.Name()] = true
}
