package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// server is the registry.
type server struct {
	blobs     *blobStore
	manifests *manifestStore
	uploads   *uploadStore
}

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
var apiPath = regexp.MustCompile(`^/v2/([a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*)` +
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

// allow refuses a request of any other method than these.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "not a method of this endpoint: "+r.Method)
	return false
}

// sendJSON answers 200 with a document.
func sendJSON(w http.ResponseWriter, mediaType string, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		internalError(w, err)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(body) // the client may be gone
}

// sendContent answers with a blob or a manifest, or with a part of it (RFC 9110,
// section 14).
func sendContent(w http.ResponseWriter, r *http.Request, mediaType string, d digest.Digest, content io.ReadSeeker) {
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // several ranges may be ignored (section 14.2), and nobody needs them
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Etag", `"`+d.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, content)
}

// refuse answers with an error of the distribution-spec, section "Error Codes".
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // the client may be gone
}

// internalError says what went wrong here and keeps to itself in which file.
func internalError(w http.ResponseWriter, err error) {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = fmt.Errorf("%s: %w", path.Op, path.Err)
	} else if link := (*os.LinkError)(nil); errors.As(err, &link) {
		err = fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
}
