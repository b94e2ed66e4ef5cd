package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest bounds manifests and indexes, bytes (distribution-spec, "Pushing
// Manifests").
const maxManifest = 4 << 20

func (p *Proxy) getManifest(w *recorder, r *http.Request, repo *repository, t *target) error {
	identifier, err := repo.identifier(t)
	if err != nil {
		return err
	}
	s, err := p.session(r.Context(), repo, transport.PullScope, nil)
	if err != nil {
		return err
	}
	a, err := s.do(r.Context(), s.call(r, "manifests/"+identifier, "Accept"))
	if err != nil {
		return err
	}
	if a.StatusCode != http.StatusOK {
		return a.relay(w)
	}
	if r.Method == http.MethodHead {
		repo.see(digest.Digest(a.Header.Get("Docker-Content-Digest")))
		return a.relay(w)
	}
	defer closeBody(a.Body)
	body, err := p.readManifest(r, a.Body, func() { _ = a.Body.Close() })
	if err != nil {
		return err
	}
	repo.see(listed(body)...)
	a.passHeaders(w.Header())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err = w.Write(body)
	w.broken = err != nil
	return err
}

func (p *Proxy) putManifest(w *recorder, r *http.Request, repo *repository, t *target) error {
	body, err := p.readManifest(r, r.Body, func() { _ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(past()) })
	if err != nil {
		return err
	}
	identifier := repo.ref.Identifier()
	if t.digest != "" {
		identifier = t.ref
	}
	got := digest.FromBytes(body)
	if d, err := digest.Parse(identifier); err == nil {
		if got = d.Algorithm().FromBytes(body); got != d {
			return &refusal{status: http.StatusBadRequest, code: "DIGEST_INVALID", message: "the manifest has the digest " + got.String() + ", not " + d.String()}
		}
	}
	s, err := p.session(r.Context(), repo, pushScope, nil)
	if err != nil {
		return err
	}
	c := s.call(r, "manifests/"+identifier, "Content-Type")
	c.body, c.size = func() io.Reader { return bytes.NewReader(body) }, int64(len(body))
	a, err := s.do(r.Context(), c)
	if err != nil {
		return err
	}
	if a.StatusCode < 200 || a.StatusCode >= 300 {
		return a.relay(w)
	}
	defer closeBody(a.Body)
	repo.see(append(listed(body), got)...)
	if t.digest == "" {
		p.pushes.end(repo.alias)
	}
	a.passHeaders(w.Header())
	w.Header().Del("Content-Type")
	w.Header().Set("Docker-Content-Digest", got.String())
	w.Header().Set("Location", "/v2/"+repo.alias+"/manifests/"+got.String())
	w.WriteHeader(http.StatusCreated)
	return nil
}

// readManifest reads a manifest whole, unless it takes too long; stop then ends the
// reading. Few are read at the same time.
func (p *Proxy) readManifest(r *http.Request, from io.Reader, stop func()) ([]byte, error) {
	if err := p.manifests.Acquire(r.Context(), 1); err != nil {
		return nil, err
	}
	defer p.manifests.Release(1)
	timer := time.AfterFunc(p.paces.manifest, stop)
	var body bytes.Buffer
	n, err := io.Copy(&body, io.LimitReader(from, maxManifest+1))
	if inTime := timer.Stop(); err != nil && !inTime {
		return nil, errSlow
	}
	if err != nil {
		return nil, err
	}
	if n > maxManifest {
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, code: "SIZE_INVALID", message: "manifests are bounded to 4 MiB"}
	}
	return body.Bytes(), nil
}

// listed returns the digest of a manifest or an index and of what it lists.
func listed(body []byte) []digest.Digest {
	digests := []digest.Digest{digest.FromBytes(body)}
	var index ocispec.Index
	_ = json.Unmarshal(body, &index) // what isn't an index lists nothing
	for _, m := range index.Manifests {
		digests = append(digests, m.Digest)
	}
	return digests
}

func (p *Proxy) getBlob(w *recorder, r *http.Request, repo *repository, t *target) error {
	s, err := p.session(r.Context(), repo, transport.PullScope, nil)
	if err != nil {
		return err
	}
	a, err := s.do(r.Context(), s.call(r, "blobs/"+t.ref, "Range"))
	if err != nil {
		return err
	}
	return a.relay(w)
}
