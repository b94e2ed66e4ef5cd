// Package serve is a small registry (OCI distribution-spec) for a first try and for tests.
package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"os"
	"regexp"
	"strings"

	backend "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
)

const (
	serveBlobs     = "blobs/sha256"
	serveUploads   = "uploads"
	serveManifests = "manifests"
)

// Handler returns a registry (OCI distribution-spec) that keeps its images below
// the directory dir, made if need be: for a first try and for tests, without
// authentication, so for loopback only. What it has acknowledged is there again
// for the next Handler of the same directory; two at the same time must not use
// one. It logs nothing.
//
// It is go-containerregistry's registry, which keeps manifests and unfinished
// uploads in memory and takes one upload at a time; here, uploads go to files,
// side by side, and manifests are kept in files as well.
func Handler(dir string) (http.Handler, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // images are no secret of this machine
		return nil, fmt.Errorf("open registry: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	for _, sub := range []string{serveBlobs, serveUploads, serveManifests} {
		if err := root.MkdirAll(sub, 0o755); err != nil {
			return nil, fmt.Errorf("open registry %s: %w", dir, err)
		}
	}
	s := &server{root: root, blobs: blobFiles{root}, uploads: make(map[string]*fileUpload)}
	s.inner = backend.New(backend.WithBlobHandler(s.blobs), backend.Logger(log.New(io.Discard, "", 0)),
		backend.WithReferrersSupport(true))
	if err := s.removeUploads(); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", dir, err)
	}
	if err := s.replay(); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", dir, err)
	}
	return s, nil
}

// blobFiles keeps finished blobs, each in a file named by its digest.
type blobFiles struct{ root *os.Root }

func (b blobFiles) name(h v1.Hash) (string, error) {
	if h.Algorithm != "sha256" {
		return "", backend.ErrNotFound
	}
	return serveBlobs + "/" + h.Hex, nil
}

// Stat implements backend.BlobStatHandler: blobs were verified as they came.
func (b blobFiles) Stat(_ context.Context, _ string, h v1.Hash) (int64, error) {
	name, err := b.name(h)
	if err != nil {
		return 0, err
	}
	info, err := b.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, backend.ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Get implements backend.BlobHandler.
func (b blobFiles) Get(_ context.Context, _ string, h v1.Hash) (io.ReadCloser, error) {
	name, err := b.name(h)
	if err != nil {
		return nil, err
	}
	f, err := b.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backend.ErrNotFound
	}
	return f, err
}

// Delete implements backend.BlobDeleteHandler.
func (b blobFiles) Delete(_ context.Context, _ string, h v1.Hash) error {
	name, err := b.name(h)
	if err != nil {
		return err
	}
	return b.root.Remove(name)
}

// apiPath splits the path of a request below one repository (distribution-spec,
// section "Endpoints"; its grammar of names).
var apiPath = regexp.MustCompile(`^/v2/([a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)` +
	`/(manifests|blobs|blobs/uploads|tags|referrers)/([^/]*)$`)

const maxName = 255

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" || r.URL.Path == "/v2/_catalog" {
		s.inner.ServeHTTP(w, r)
		return
	}
	match := apiPath.FindStringSubmatch(r.URL.Path)
	if match == nil || len(match[1]) > maxName {
		refuse(w, http.StatusNotFound, "NAME_INVALID", "no such endpoint, or an invalid repository name")
		return
	}
	repo, kind, target := match[1], match[2], match[3]
	switch {
	case kind == "blobs/uploads" || (kind == "blobs" && target == "uploads"):
		s.serveUpload(w, r, repo, strings.TrimPrefix(target, "uploads"))
	case kind == "manifests" && r.Method == http.MethodPut:
		s.putManifest(w, r, repo, target)
	case kind == "manifests" && r.Method == http.MethodDelete:
		s.deleteManifest(w, r, repo, target)
	default:
		s.inner.ServeHTTP(w, r)
	}
}

// refuse answers with an error of the distribution-spec.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // the client may be gone
}

func internalError(w http.ResponseWriter, err error) {
	refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
}

// recorder keeps an inner answer back until it's true.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newRecorder() *recorder { return &recorder{header: make(http.Header), status: http.StatusOK} }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// send passes the answer on.
func (r *recorder) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // the client may be gone
}

func sha256Hash(d digest.Digest) (v1.Hash, error) {
	if err := d.Validate(); err != nil {
		return v1.Hash{}, err
	}
	if d.Algorithm() != digest.SHA256 {
		return v1.Hash{}, fmt.Errorf("digest algorithm %s: %w", d.Algorithm(), digest.ErrDigestUnsupported)
	}
	return v1.NewHash(d.String())
}
