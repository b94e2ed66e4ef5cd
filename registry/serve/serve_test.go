package serve_test

import (
	"bytes"
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

func request(t *testing.T, method, url, contentType string, content []byte) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestHandlerRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, err := serve.Handler(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	base := srv.URL
	const image = "application/vnd.oci.image.manifest.v1+json"
	missing := fmt.Appendf(nil, `{"config":{"digest":%q},"layers":[]}`, digest.FromString("missing"))
	empty := []byte(`{}`)
	tests := []struct {
		method, path, contentType string
		content                   []byte
		status                    int
		code                      string
	}{
		{"GET", "/v2/", "", nil, 200, ""},
		{"GET", "/", "", nil, 404, "NAME_INVALID"},
		{"GET", "/v2/UPPER/manifests/1", "", nil, 404, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/1", "", nil, 404, "NAME_INVALID"},
		{"PUT", "/v2/a/..%2f..%2fb/manifests/1", image, empty, 404, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/sha256:..%2f..%2fetc", "", nil, 404, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/sha256:zz", "", nil, 400, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/" + digest.FromString("nothing").String(), "", nil, 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/a/blobs/" + digest.SHA512.FromString("nothing").String(), "", nil, 404, "BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/..", image, empty, 400, "TAG_INVALID"},
		{"PUT", "/v2/a/manifests/" + strings.Repeat("t", 129), image, empty, 400, "TAG_INVALID"},
		{"PUT", "/v2/a/manifests/1", image, []byte("{"), 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", "", empty, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/a/manifests/1", image, missing, 400, "MANIFEST_BLOB_UNKNOWN"},
		{"PUT", "/v2/a/manifests/1", image, make([]byte, 5<<20), 413, "SIZE_INVALID"},
		{"PUT", "/v2/a/manifests/" + digest.FromString("x").String(), image, empty, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/a/blobs/uploads/none?digest=" + digest.FromString("x").String(), "", empty, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"PATCH", "/v2/a/blobs/uploads/..", "", empty, 404, "BLOB_UPLOAD_UNKNOWN"},
		{"POST", "/v2/a/blobs/uploads/x", "", empty, 405, "UNSUPPORTED"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest.FromString("x").String(), "", empty, 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=md5:00", "", empty, 400, "DIGEST_INVALID"},
		{"POST", "/v2/a/blobs/uploads/?digest=" + digest.FromString("{}").String(), "", empty, 201, ""},
	}
	for _, tt := range tests {
		status, answer := request(t, tt.method, base+tt.path, tt.contentType, tt.content)
		if status != tt.status || !strings.Contains(answer, tt.code) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.path, status, answer, tt.status, tt.code)
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
