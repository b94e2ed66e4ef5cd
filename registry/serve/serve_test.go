package serve_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/serve"
)

const (
	imageType = "application/vnd.oci.image.manifest.v1+json"
	indexType = "application/vnd.oci.image.index.v1+json"
)

// client asks a registry.
type client struct {
	t    *testing.T
	base string // URL
}

// open serves the directory dir.
func open(t *testing.T, dir string) client {
	t.Helper()
	h, err := serve.Handler(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return client{t, srv.URL}
}

// answer is a registry's.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request with headers, each "name: value".
func (c client) ask(method, path, body string, headers ...string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// want asks and checks the status.
func (c client) want(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a := c.ask(method, path, body, headers...)
	if a.status != status {
		c.t.Errorf("%s %s: %d %s, want %d", method, path, a.status, a.body, status)
	}
	return a
}

// push uploads a blob at once.
func (c client) push(repo, content string) digest.Digest {
	c.t.Helper()
	d := digest.FromString(content)
	c.want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), content)
	return d
}

// pushManifest pushes an image of one blob under a reference, "" for its digest.
func (c client) pushManifest(repo, reference, blob, more string) digest.Digest {
	c.t.Helper()
	body := fmt.Sprintf(`{"config":{"digest":%q},"layers":[]%s}`, c.push(repo, blob), more)
	d := digest.FromString(body)
	if reference == "" {
		reference = d.String()
	}
	c.want(201, "PUT", "/v2/"+repo+"/manifests/"+reference, body, "Content-Type: "+imageType)
	return d
}

func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, filepath.Join(dir, "data"))
	const empty = "{}"
	nothing := digest.FromString("nothing")
	lacks := func(member, value string) string {
		return strings.ReplaceAll(`{"`+member+`":`+value+`}`, "DIGEST", nothing.String())
	}
	tests := []struct {
		method, path, contentType string
		content                   string
		status                    int
		code                      string
	}{
		{"GET", "/v2/", "", "", 200, ""},
		{"GET", "/", "", "", 404, "NAME_INVALID"},
		{"GET", "/v2/UPPER/manifests/1", "", "", 404, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/1", "", "", 404, "NAME_INVALID"},
		{"PUT", "/v2/a/..%2f..%2fb/manifests/1", imageType, empty, 404, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/sha256:..%2f..%2fetc", "", "", 404, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/sha256:zz", "", "", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/" + digest.FromString("nothing").String(), "", "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/a/blobs/" + digest.SHA512.FromString("nothing").String(), "", "", 404, "BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/..", imageType, empty, 400, "TAG_INVALID"},
		{"PUT", "/v2/a/manifests/" + strings.Repeat("t", 129), imageType, empty, 400, "TAG_INVALID"},
		{"PUT", "/v2/a/manifests/1", imageType, "{", 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", "", empty, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", imageType, lacks("config", `{"digest":"DIGEST"}`), 400, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/1", imageType, lacks("layers", `[{"digest":"DIGEST"}]`), 400, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/1", indexType, lacks("manifests", `[{"digest":"DIGEST"}]`), 400, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/1", imageType, `{"layers":[{"digest":"sha256:zz"}]}`, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", imageType, `{"subject":{"digest":"x"}}`, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", imageType, `{"mediaType":"` + indexType + `"}`, 400, indexType},
		{"PUT", "/v2/b/manifests/1", "Text/Example; q=1", `{"mediaType":"text/Example"}`, 201, ""},
		{"PUT", "/v2/a/manifests/1?tag=2", imageType, empty, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/a/manifests/" + digest.FromString(empty).String() + "?tag=..", imageType, empty, 400, "TAG_INVALID"},
		{"PUT", "/v2/a/manifests/" + digest.SHA384.FromString(empty).String(), imageType, empty, 400, "sha384"},
		{"GET", "/v2/a/manifests/1", "", "", 404, "MANIFEST_UNKNOWN"},
		{"HEAD", "/v2/a/manifests/1", "", "", 404, ""},
		{"DELETE", "/v2/a/manifests/1", "", "", 404, "MANIFEST_UNKNOWN"},
		{"DELETE", "/v2/a/manifests/" + nothing.String(), "", "", 404, "MANIFEST_UNKNOWN"},
		{"POST", "/v2/a/manifests/1", "", "", 405, "UNSUPPORTED"},
		{"HEAD", "/v2/a/blobs/" + nothing.String(), "", "", 404, ""},
		{"DELETE", "/v2/a/blobs/" + nothing.String(), "", "", 404, "BLOB_UNKNOWN"},
		{"DELETE", "/v2/a/blobs/sha256:zz", "", "", 400, "DIGEST_INVALID"},
		{"PUT", "/v2/a/blobs/" + nothing.String(), "", "", 405, "UNSUPPORTED"},
		{"GET", "/v2/a/blobs/" + digest.SHA384.FromString("x").String(), "", "", 400, "sha384"},
		{"GET", "/v2/a/tags/list", "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/a/tags/other", "", "", 404, "UNSUPPORTED"},
		{"GET", "/v2/_catalog?n=-1", "", "", 400, "PAGINATION_NUMBER_INVALID"},
		{"GET", "/v2/_catalog?n=all", "", "", 400, "PAGINATION_NUMBER_INVALID"},
		{"DELETE", "/v2/_catalog", "", "", 405, "UNSUPPORTED"},
		{"GET", "/v2/a/referrers/sha256:zz", "", "", 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?mount=sha256:zz&from=b", "", "", 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest.SHA384.FromString(empty).String(), "", empty, 400, "sha384"},
		{"PUT", "/v2/a/manifests/1", imageType, strings.Repeat(" ", 5<<20), 413, "SIZE_INVALID"},
		{"PUT", "/v2/a/manifests/" + digest.FromString("x").String(), imageType, empty, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/a/blobs/uploads/none?digest=" + digest.FromString("x").String(), "", empty, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"PATCH", "/v2/a/blobs/uploads/..", "", empty, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"POST", "/v2/a/blobs/uploads/x", "", empty, 405, "UNSUPPORTED"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest.FromString("x").String(), "", empty, 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=md5:00", "", empty, 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest.FromString("{}").String(), "", empty, 201, ""},
	}
	for _, tt := range tests {
		var headers []string
		if tt.contentType != "" {
			headers = append(headers, "Content-Type: "+tt.contentType)
		}
		a := c.ask(tt.method, tt.path, tt.content, headers...)
		if a.status != tt.status || !strings.Contains(a.body, tt.code) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, a.status, a.body, tt.status, tt.code)
		}
		if strings.Contains(a.body, dir) || strings.Contains(a.body, "sha256/") {
			t.Errorf("%s %s tells a path: %s", tt.method, tt.path, a.body)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("files beside the registry's: %v, %v", entries, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "data", "uploads")); err != nil || len(left) > 0 {
		t.Errorf("uploads left: %v, %v", left, err)
	}
}

func TestHandlerDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := serve.Handler(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifests", "torn.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := serve.Handler(dir); err == nil || !strings.Contains(err.Error(), "torn.json is damaged") {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := serve.Handler(file); err == nil {
		t.Error("a file was taken for a directory")
	}
}
