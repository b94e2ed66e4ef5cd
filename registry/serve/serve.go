package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/containers/storage/pkg/regexp"
)

// Handler returns a registry that keeps its images below the directory dir, made
// if need be. It has no authentication, so it is for loopback only. What it has
// acknowledged is there again for the next Handler of the same directory; two at
// the same time must not use one.
func Handler(dir string) (http.Handler, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // images are no secret of this machine
		return nil, fmt.Errorf("open registry: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	s := &server{
		blobs:     &blobStore{root: root},
		manifests: &manifestStore{root: root, repositories: make(map[string]*repository)},
		uploads:   &uploadStore{root: root, uploads: make(map[string]*upload)},
	}
	if err := s.open(root); err != nil {
		return nil, fmt.Errorf("open registry %s: %w", dir, err)
	}
	return s, nil
}

// open reads what earlier servers have left below root.
func (s *server) open(root *os.Root) error {
	for _, sub := range []string{blobsDir + "/sha256", blobsDir + "/sha512", manifestsDir, uploadsDir} {
		if err := root.MkdirAll(sub, 0o755); err != nil {
			return err
		}
	}
	if err := s.uploads.clear(); err != nil {
		return err
	}
	if _, err := root.Stat(linksDir); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, s.manifests.load(func(*manifestFile, *document) error { return nil }))
	}
	if err := root.RemoveAll(newLinksDir); err != nil {
		return err
	}
	if err := root.Mkdir(newLinksDir, 0o755); err != nil {
		return err
	}
	if err := s.manifests.load(s.blobs.linkAll); err != nil {
		return err
	}
	return root.Rename(newLinksDir, linksDir)
}

// apiPath splits the path of a request below one repository (distribution-spec,
// sections "Endpoints" and "Pulling manifests" for its grammar of names).
var apiPath = regexp.Delayed(`^/v2/([a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)` +
	`/(manifests|blobs|blobs/uploads|tags|referrers)/([^/]*)$`)

// maxName is the length of the longest name of a repository.
const maxName = 255

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	switch r.URL.Path {
	case "/v2/", "/v2":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			sendJSON(w, "application/json", struct{}{})
		}
		return
	case "/v2/_catalog":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.catalog(w, r)
		}
		return
	}
	match := apiPath.FindStringSubmatch(r.URL.Path)
	if match == nil || len(match[1]) > maxName {
		refuse(w, http.StatusNotFound, "NAME_INVALID", "no such endpoint, or an invalid repository name")
		return
	}
	repo, kind, target := match[1], match[2], match[3]
	switch {
	case kind == "blobs/uploads", kind == "blobs" && target == "uploads":
		s.serveUpload(w, r, repo, strings.TrimPrefix(target, "uploads"))
	case kind == "blobs":
		s.serveBlob(w, r, repo, target)
	case kind == "manifests":
		s.serveManifest(w, r, repo, target)
	case kind == "referrers":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.referrers(w, r, repo, target)
		}
	case target == "list":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.tags(w, r, repo)
		}
	default:
		refuse(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
	}
}
