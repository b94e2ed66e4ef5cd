package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ociTypes is what OCI's media types begin with.
const ociTypes = "application/vnd.oci."

// spareLife is how long the upload that [Client.Push] began to see whether it may is kept
// for the first blob.
const spareLife = 2 * time.Minute

// Push is the pushing of one image to one reference. It is safe for concurrent
// use: blobs may go up side by side. The order is the caller's: every blob that
// a manifest names has to be there before the manifest.
type Push struct {
	session *session

	mu         sync.Mutex
	mounting   map[string]*session // with the right to read from a repository, by its name
	spare      *url.URL            // an upload that nobody uses yet; may be nil
	spareUntil time.Time
}

// Push prepares to push to ref: it reaches the registry, authenticates, and
// begins an upload to see whether it may, so that a missing right shows before
// anything is built. Cancelling ctx later does not end the Push. Pushes of one
// client share what they know: a blob is sent once for all tags of a repository,
// and mounted from there into others of the same registry.
func (c *Client) Push(ctx context.Context, ref string) (*Push, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	at, err := c.conf.PushSite(parsed)
	if err != nil {
		return nil, refused(opPreparePush, parsed, err)
	}
	s, err := c.session(ctx, at, actionsPush)
	if err != nil {
		return nil, err
	}
	p := &Push{session: s, mounting: make(map[string]*session)}
	if c.blobs.mayPush(parsed.Context()) {
		return p, nil
	}
	location, err := s.begin(ctx, opPreparePush, "")
	if err != nil {
		return nil, err
	}
	c.blobs.takesPushes(parsed.Context())
	p.spare, p.spareUntil = location, time.Now().Add(spareLife)
	return p, nil
}

// takeSpare returns the upload that was begun ahead, once. It is nil if the registry has
// probably forgotten it.
func (p *Push) takeSpare() *url.URL {
	p.mu.Lock()
	defer p.mu.Unlock()
	spare := p.spare
	p.spare = nil
	if time.Now().After(p.spareUntil) {
		return nil
	}
	return spare
}

// Learn asks which image the reference of the push names now, once, and takes it that the
// registry has the blobs of that. Blob then asks for none of them. An error says that
// nothing was learned.
func (p *Push) Learn(ctx context.Context) error {
	s := *p.session
	s.client = s.client.impatient()
	doc, err := s.root(ctx)
	if err != nil || doc.IsIndex() {
		return err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(doc.Body, &m); err != nil {
		return s.fail(oci.OpPullManifest, doc.Digest.String(), fmt.Errorf("%w: %w", oci.ErrCorrupt, err))
	}
	for _, d := range append(m.Layers, m.Config) {
		s.client.blobs.learn(s.ref.Context(), d.Digest)
	}
	return nil
}

// Forget forgets what pushes to the repository have learned. It returns true if that may be
// why Manifest failed with err: the registry lacks a blob that it should have. The caller
// then pushes the blobs again, and the manifest.
func (p *Push) Forget(err error) bool {
	return lacksBlob(err) && p.session.client.blobs.forget(p.session.ref.Context())
}

// lacksBlob reports whether a manifest was refused since the registry lacks what it names.
func lacksBlob(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.has("MANIFEST_BLOB_UNKNOWN")
}

// Blob makes sure that the registry has the blob d in the repository of the
// push: by asking, else by mounting it from the repository of the reference
// from ("" if no such repository is known; one on another registry is no help),
// else by uploading what open returns. open is called anew, and its result
// closed, for each attempt; its bytes must be d's or the push fails.
func (p *Push) Blob(ctx context.Context, d ocispec.Descriptor, from string, open func() (io.ReadCloser, error)) error {
	if err := d.Digest.Validate(); err != nil || d.Size < 0 {
		return p.session.fail(opPushBlob, "", fmt.Errorf("%w: descriptor %q of %d bytes", oci.ErrCorrupt, words.Line(d.Digest.String()), d.Size))
	}
	known, repo := p.session.client.blobs, p.session.ref.Context()
	if known.has(repo, d.Digest) {
		return nil
	}
	bringing := known.bringing(repo, d.Digest)
	if err := bringing.Acquire(ctx, 1); err != nil {
		return p.session.fail(opPushBlob, d.Digest.String(), err)
	}
	defer bringing.Release(1)
	if known.has(repo, d.Digest) {
		return nil
	}
	if err := p.bring(ctx, d, from, open); err != nil {
		return err
	}
	known.note(repo, d.Digest)
	return nil
}

// bring makes sure that the repository has a blob.
func (p *Push) bring(ctx context.Context, d ocispec.Descriptor, from string, open func() (io.ReadCloser, error)) error {
	if there, err := p.session.exists(ctx, d.Digest); there || err != nil {
		return err
	}
	broken := p.session.client.blobs.takeBroken(p.session.ref.Context(), d.Digest)
	up := &blobUpload{session: p.session, want: d, open: open, location: broken}
	if up.location == nil {
		var mounted bool
		if up.location, mounted = p.mount(ctx, d.Digest, from); mounted {
			return nil
		}
		if up.location == nil {
			up.location = p.takeSpare()
		}
		up.fresh = up.location != nil
	}
	return up.run(ctx)
}

// mount tries to mount a blob. When the registry won't, the upload that it
// began instead is returned, or nil. It never fails: uploading will tell.
func (p *Push) mount(ctx context.Context, d digest.Digest, from string) (location *url.URL, mounted bool) {
	here := p.session.ref.Context()
	if source, err := reference.Parse(from); err == nil {
		location, mounted = p.mountFrom(ctx, d, source.Context())
	}
	if there, ok := p.session.client.blobs.origin(here, d); ok && location == nil && !mounted {
		location, mounted = p.mountFrom(ctx, d, there)
	}
	return location, mounted
}

// mountFrom asks once to mount a blob: whatever keeps the registry from it, an upload
// is as good.
func (p *Push) mountFrom(ctx context.Context, d digest.Digest, there name.Repository) (location *url.URL, mounted bool) {
	here := p.session.ref.Context()
	if there.RegistryStr() != here.RegistryStr() || there.RepositoryStr() == here.RepositoryStr() {
		return nil, false
	}
	s := p.mountSession(there)
	c := s.start(opPushBlob, d.String())
	c.URL.RawQuery = url.Values{"mount": {d.String()}, "from": {there.RepositoryStr()}}.Encode()
	c.accept = append(uploadBegun(), http.StatusCreated)
	err := s.perform(ctx, c, func(resp *http.Response) (err error) {
		if mounted = resp.StatusCode == http.StatusCreated; !mounted {
			location, err = s.location(c, resp)
		}
		return err
	})
	if err != nil {
		return nil, false
	}
	return location, mounted
}

// mountSession is a session that may read from another repository too. It is
// one of its own: a token server may refuse such a token altogether.
func (p *Push) mountSession(from name.Repository) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mounting[from.RepositoryStr()]
	if s == nil {
		s = p.session.with(from.Scope("pull"))
		p.mounting[from.RepositoryStr()] = s
	}
	return s
}

// Manifest pushes a manifest or an index of at most 4 MiB to the push's tag or,
// when the push's reference has one, digest. It returns the digest.
func (p *Push) Manifest(ctx context.Context, mediaType string, body []byte) (digest.Digest, error) {
	d := digest.FromBytes(body)
	if named, ok := p.session.ref.(name.Digest); ok {
		d = digest.Digest(named.DigestStr())
	}
	return p.put(ctx, p.session.ref.Identifier(), mediaType, body, d)
}

// Child pushes a manifest of at most 4 MiB by its digest alone, for an index that
// names it. It returns the digest.
func (p *Push) Child(ctx context.Context, mediaType string, body []byte) (digest.Digest, error) {
	d := digest.FromBytes(body)
	return p.put(ctx, d.String(), mediaType, body, d)
}

// As returns the push of the same repository to another tag, or to a digest.
func (p *Push) As(identifier string) *Push {
	s := *p.session
	s.ref = s.ref.Context().Tag(identifier)
	if strings.Contains(identifier, ":") {
		s.ref = s.ref.Context().Digest(identifier)
	}
	return &Push{session: &s, mounting: make(map[string]*session)}
}

// put stores the manifest body, whose digest has to be d, under a tag or digest.
func (p *Push) put(ctx context.Context, identifier, mediaType string, body []byte, d digest.Digest) (digest.Digest, error) {
	s := p.session
	if len(body) > oci.MaxManifest {
		return "", s.fail(opPushManifest, "", oci.TooLarge(int64(len(body)), oci.MaxManifest))
	}
	if err := oci.Verify(body, ocispec.Descriptor{Digest: d, Size: -1}); err != nil {
		return "", s.fail(opPushManifest, "", err)
	}
	c := &call{
		op:     opPushManifest,
		accept: partStored(),
		Call: wire.Call{
			Method: http.MethodPut,
			URL:    s.url("manifests/" + identifier),
			Header: http.Header{"Content-Type": {mediaType}},
			Body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
			Size:   int64(len(body)),
			Commit: true,
		},
	}
	err := s.client.run(ctx, opPushManifest+" "+reference.String(s.ref), func() error {
		err := s.perform(ctx, c, func(resp *http.Response) error { return s.checkDigest(opPushManifest, d, resp) })
		if e, ok := errors.AsType[*Error](err); ok {
			e.oci = strings.HasPrefix(mediaType, ociTypes)
			e.damaged()
			e.permanent = e.permanent || lacksBlob(err) && s.client.blobs.learned(s.ref.Context())
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return d, nil
}
