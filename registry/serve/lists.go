package serve

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lexical is the order of lists: alphabetical, whatever the case
// (distribution-spec, section "Listing Tags").
func lexical(a, b string) int {
	return cmp.Or(strings.Compare(strings.ToLower(a), strings.ToLower(b)), strings.Compare(a, b))
}

// page sorts names and returns those that a request's parameters n and last ask
// for. If there are more, the answer has a link to them. It answers itself when it
// can't.
func page(w http.ResponseWriter, r *http.Request, names []string) ([]string, bool) {
	slices.SortFunc(names, lexical)
	query := r.URL.Query()
	if last := query.Get("last"); last != "" {
		i, found := slices.BinarySearchFunc(names, last, lexical)
		if found {
			i++
		}
		names = names[i:]
	}
	if !query.Has("n") {
		return names, true
	}
	n, err := strconv.Atoi(query.Get("n"))
	if err != nil || n < 0 {
		refuse(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", fmt.Sprintf("n is no number of results: %q", query.Get("n")))
		return nil, false
	}
	if n >= len(names) {
		return names, true
	}
	if n > 0 {
		linkNext(w, r, names[n-1])
	}
	return names[:n], true
}

// linkNext says where a list goes on (RFC 8288, which replaces RFC 5988).
func linkNext(w http.ResponseWriter, r *http.Request, last string) {
	query := r.URL.Query()
	query.Set("last", last)
	next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

// tags answers end-8a and end-8b.
func (s *server) tags(w http.ResponseWriter, r *http.Request, repo string) {
	names, known := s.manifests.tagsOf(repo)
	if !known {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such repository: "+repo)
		return
	}
	if names, ok := page(w, r, names); ok {
		sendJSON(w, "application/json", struct {
			Name string   `json:"name"`
			Tags []string `json:"tags"`
		}{repo, names})
	}
}

// catalog answers with the names of all repositories.
func (s *server) catalog(w http.ResponseWriter, r *http.Request) {
	if names, ok := page(w, r, s.manifests.names()); ok {
		sendJSON(w, "application/json", struct {
			Repositories []string `json:"repositories"`
		}{names})
	}
}

// referrers answers end-12a and end-12b. Of a list that is too long for a manifest
// it sends a part and a link to the next.
func (s *server) referrers(w http.ResponseWriter, r *http.Request, repo, target string) {
	subject, err := parseDigest(target)
	if err != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	query := r.URL.Query()
	wanted := query.Get("artifactType")
	list := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, []json.RawMessage{}}
	size, sent := 0, query.Get("last")
	for _, d := range s.manifests.referrersOf(repo, subject) {
		if d.String() <= query.Get("last") {
			continue
		}
		described, err := s.manifests.describe(repo, d)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been removed
		}
		if err != nil {
			internalError(w, err)
			return
		}
		if wanted != "" && described.ArtifactType != wanted {
			continue
		}
		one, err := json.Marshal(described)
		if err != nil {
			internalError(w, err)
			return
		}
		if size += len(one); size > maxManifest && len(list.Manifests) > 0 {
			linkNext(w, r, sent)
			break
		}
		list.Manifests, sent = append(list.Manifests, one), d.String()
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	sendJSON(w, ocispec.MediaTypeImageIndex, list)
}
