package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveManifest answers end-3, end-7 and end-9.
func (s *server) serveManifest(w http.ResponseWriter, r *http.Request, repo, reference string) {
	switch r.Method {
	case http.MethodPut:
		s.putManifest(w, r, repo, reference)
	case http.MethodDelete:
		s.deleteManifest(w, repo, reference)
	default:
		if allow(w, r, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete) {
			s.getManifest(w, r, repo, reference)
		}
	}
}

func (s *server) getManifest(w http.ResponseWriter, r *http.Request, repo, reference string) {
	d, err := s.manifests.find(repo, reference)
	var m *manifestFile
	if err == nil {
		m, _, err = s.manifests.read(manifestName(repo, d.String()))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest in "+repo+": "+reference)
	case err != nil:
		internalError(w, err)
	default:
		sendContent(w, r, m.ContentType, d, bytes.NewReader(m.Body))
	}
}

func (s *server) deleteManifest(w http.ResponseWriter, repo, reference string) {
	err := s.manifests.remove(repo, reference)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest in "+repo+": "+reference)
	case err != nil:
		internalError(w, err)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// refusal is an answer that isn't sent yet.
type refusal struct {
	status        int
	code, message string
}

// putManifest checks a manifest, stores it, and only then answers.
func (s *server) putManifest(w http.ResponseWriter, r *http.Request, repo, reference string) {
	p, no := readPush(w, r, repo, reference)
	if no != nil {
		refuse(w, no.status, no.code, no.message)
		return
	}
	if missing, err := s.missing(p); err != nil {
		internalError(w, err)
		return
	} else if missing != "" {
		refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "not in "+repo+": "+missing.String())
		return
	}
	if err := s.manifests.put(p); err != nil {
		internalError(w, err)
		return
	}
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+p.digest.String())
	w.Header().Set("Docker-Content-Digest", p.digest.String())
	if subject := p.subject(); subject != "" {
		w.Header().Set("OCI-Subject", subject.String())
	}
	for _, tag := range r.URL.Query()["tag"] {
		w.Header().Add("OCI-Tag", tag)
	}
	w.WriteHeader(http.StatusCreated)
}

// readPush reads a request and checks it alone.
func readPush(w http.ResponseWriter, r *http.Request, repo, reference string) (*push, *refusal) {
	p := &push{repo: repo}
	var err error
	if p.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest)); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return nil, &refusal{
				http.StatusRequestEntityTooLarge, "SIZE_INVALID",
				fmt.Sprintf("the manifest is larger than %d bytes", tooLarge.Limit),
			}
		}
		return nil, &refusal{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	if p.mediaType, _, err = mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil {
		return nil, &refusal{http.StatusBadRequest, "MANIFEST_INVALID", "Content-Type: " + err.Error()}
	}
	if no := p.name(reference, r.URL.Query()); no != nil {
		return nil, no
	}
	if err := json.Unmarshal(p.body, &p.document); err != nil {
		return nil, &refusal{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	if p.MediaType != "" && !strings.EqualFold(p.MediaType, p.mediaType) {
		return nil, &refusal{
			http.StatusBadRequest, "MANIFEST_INVALID",
			fmt.Sprintf("the manifest's mediaType is %q, and it came as %q", p.MediaType, p.mediaType),
		}
	}
	if err := p.checkDigests(); err != nil {
		return nil, &refusal{http.StatusBadRequest, "MANIFEST_INVALID", err.Error()}
	}
	return p, nil
}

// name gives p its digest and tags: those of the path, and those of the parameter
// tag, which may stand beside a digest.
func (p *push) name(reference string, query url.Values) *refusal {
	tags := query["tag"]
	p.digest = digest.FromBytes(p.body)
	if tagPattern.MatchString(reference) && len(tags) == 0 {
		p.tags = []string{reference}
		return nil
	}
	wanted, err := parseDigest(reference)
	if err != nil {
		if len(tags) > 0 || strings.Contains(reference, ":") {
			return &refusal{http.StatusBadRequest, "DIGEST_INVALID", err.Error()}
		}
		return &refusal{http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("not a tag: %q", reference)}
	}
	if p.digest = wanted.Algorithm().FromBytes(p.body); p.digest != wanted {
		return &refusal{http.StatusBadRequest, "DIGEST_INVALID", "the manifest has the digest " + p.digest.String()}
	}
	for _, tag := range tags {
		if !tagPattern.MatchString(tag) {
			return &refusal{http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("not a tag: %q", tag)}
		}
	}
	p.tags = tags
	return nil
}

// missing returns a part of the manifest that isn't in its repository, "" if all are.
// Layers that are to be had elsewhere may be missing, and so may the subject.
func (s *server) missing(p *push) (digest.Digest, error) {
	for _, part := range p.Manifests {
		if !s.manifests.has(p.repo, part.Digest) {
			// An index may also list blobs, as caches do.
			if err := s.blobs.stat(p.repo, part.Digest); err != nil {
				return lacking(part, err)
			}
		}
	}
	for _, part := range p.blobs() {
		if err := s.blobs.stat(p.repo, part.Digest); err != nil && len(part.URLs) == 0 {
			return lacking(part, err)
		}
	}
	return "", nil
}

// lacking tells what is missing from what can't be read.
func lacking(part ocispec.Descriptor, err error) (digest.Digest, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return part.Digest, nil
	}
	return "", err
}
