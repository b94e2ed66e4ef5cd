package proxy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containers/storage/pkg/regexp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
)

// What a request is about.
type kind string

const (
	kindHealth   kind = "health"
	kindAPI      kind = "api" // /v2/
	kindManifest kind = "manifest"
	kindBlob     kind = "blob"
	kindStart    kind = "upload start"
	kindUpload   kind = "upload"
)

// A target is what a request is about, by its method, path and query alone.
type target struct {
	kind   kind
	repo   string         // as the path has it
	ref    string         // tag, digest, or ID of an upload
	digest digest.Digest  // ref, if it is one
	mirror *name.Registry // the host of a mirror request
}

// What the distribution-spec allows as a name, and as a tag.
var (
	apiPath    = regexp.Delayed(`^/v2/([a-z0-9._/-]{1,255})/(manifests|blobs)/([a-zA-Z0-9._:+=-]{1,255}|uploads/[a-zA-Z0-9]{0,64})$`)
	repoName   = regexp.Delayed(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern = regexp.Delayed(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

const uploadsPath = "uploads/"

// parseTarget returns what r is about, nil if the proxy has nothing for it.
func parseTarget(r *http.Request) *target {
	// The path as it came, so that there is only one way to write it.
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if path != r.URL.Path || r.URL.Host != "" {
		return nil
	}
	t := parsePath(path)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if t == nil || err != nil {
		return nil
	}
	if query.Has("ns") && !t.mirrors(query["ns"]) {
		return nil
	}
	if !slices.Contains(t.methods(), r.Method) {
		return nil
	}
	return t
}

func parsePath(path string) *target {
	switch path {
	case "/healthz":
		return &target{kind: kindHealth}
	case "/v2/", "/v2":
		return &target{kind: kindAPI}
	}
	match := apiPath.FindStringSubmatch(path)
	if match == nil || !repoName.MatchString(match[1]) {
		return nil
	}
	t := &target{repo: match[1], ref: match[3]}
	if d, err := digest.Parse(t.ref); err == nil {
		t.digest = d
	}
	id, upload := strings.CutPrefix(t.ref, uploadsPath)
	switch {
	case match[2] == "manifests" && (t.digest != "" || tagPattern.MatchString(t.ref)):
		t.kind = kindManifest
	case match[2] == "manifests":
		return nil
	case t.digest != "":
		t.kind = kindBlob
	case upload && id == "":
		t.kind = kindStart
	case upload:
		t.kind, t.ref = kindUpload, id
	default:
		return nil
	}
	return t
}

// methods are those that make sense for t.
func (t *target) methods() []string {
	switch {
	case t.kind == kindStart:
		return []string{http.MethodPost}
	case t.kind == kindUpload:
		return []string{http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete}
	case t.kind == kindManifest && t.mirror == nil:
		return []string{http.MethodGet, http.MethodHead, http.MethodPut}
	}
	return []string{http.MethodGet, http.MethodHead}
}

var hostPattern = regexp.Delayed(`(?i)^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)(:[0-9]{1,5})?$`)

// mirrors makes t a mirror request for the host in hosts, and says whether it
// can be one.
func (t *target) mirrors(hosts []string) bool {
	if len(hosts) != 1 || !hostPattern.MatchString(hosts[0]) || (t.kind != kindManifest && t.kind != kindBlob) {
		return false
	}
	reg, err := name.NewRegistry(hosts[0])
	t.mirror = &reg
	return err == nil
}
