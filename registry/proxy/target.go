package proxy

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

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
	apiPath    = regexp.MustCompile(`^/v2/([a-z0-9._/-]{1,255})/(manifests|blobs)/([a-zA-Z0-9._:+=-]{1,255}|uploads/[a-zA-Z0-9]{0,64})$`)
	repoName   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

const uploadsPath = "uploads/"

// parseTarget returns what r is about, nil if the proxy has nothing for it.
func parseTarget(r *http.Request) *target {
	// The path as it came, so that there is only one way to write it.
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if path != r.URL.Path || r.URL.Host != "" {
		return nil
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path {
	case "/healthz":
		return onlyIf(reads, &target{kind: kindHealth})
	case "/v2/", "/v2":
		return onlyIf(reads, &target{kind: kindAPI})
	}
	match := apiPath.FindStringSubmatch(path)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if match == nil || err != nil || !repoName.MatchString(match[1]) {
		return nil
	}
	t := &target{repo: match[1], ref: match[3]}
	if d, err := digest.Parse(t.ref); err == nil {
		t.digest = d
	}
	id, upload := strings.CutPrefix(t.ref, uploadsPath)
	switch {
	case match[2] == "manifests":
		t.kind = kindManifest
		reads = reads || r.Method == http.MethodPut
		if t.digest == "" && !tagPattern.MatchString(t.ref) {
			return nil
		}
	case !upload && t.digest == "":
		return nil
	case !upload:
		t.kind = kindBlob
	case id == "":
		return onlyIf(r.Method == http.MethodPost && !query.Has("ns"), t.as(kindStart, ""))
	default:
		ok := r.Method == http.MethodGet || r.Method == http.MethodPatch || r.Method == http.MethodPut || r.Method == http.MethodDelete
		return onlyIf(ok && !query.Has("ns"), t.as(kindUpload, id))
	}
	if query.Has("ns") {
		return onlyIf(r.Method != http.MethodPut, t.from(query["ns"]))
	}
	return onlyIf(reads, t)
}

func onlyIf(ok bool, t *target) *target {
	if !ok {
		return nil
	}
	return t
}

func (t *target) as(k kind, ref string) *target {
	t.kind, t.ref = k, ref
	return t
}

// from makes t a mirror request for the one host that is named, nil if none is.
func (t *target) from(hosts []string) *target {
	if len(hosts) != 1 || hosts[0] == "" {
		return nil
	}
	reg, err := name.NewRegistry(hosts[0])
	if err != nil || strings.ContainsAny(hosts[0], "@/?#\\% ") {
		return nil
	}
	t.mirror = &reg
	return t
}
