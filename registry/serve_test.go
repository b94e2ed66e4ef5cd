package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry"
)

func TestHandlerPersists(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	open := func() string {
		h, err := registry.Handler(dir)
		if err != nil {
			t.Fatal(err)
		}
		return serve(t, h)
	}
	host := open()
	c := newClient(t, nil)
	f := newFixture(t, amd64, 1000)
	f.push(t.Context(), t, c, host+"/team/app:1")
	f.push(t.Context(), t, c, host+"/team/app:gone")
	digests := pushIndex(t, c, host+"/multi", "linux/amd64", "linux/arm64")
	if status, _ := request(t, http.MethodDelete, "http://"+host+"/v2/team/app/manifests/gone", "", nil); status != http.StatusAccepted {
		t.Errorf("DELETE answers %d", status)
	}

	host = open()
	im := f.check(t.Context(), t, c, host+"/team/app:1")
	f.check(t.Context(), t, c, strings.Replace(im.Reference, "@", ":ignored@", 1))
	for _, tag := range []string{":index", ":list"} {
		im, err := c.Resolve(t.Context(), host+"/multi"+tag, amd64)
		if err != nil || im.Digest != digests["linux/amd64"] {
			t.Errorf("%s: %v", tag, err)
		}
	}
	if _, err := c.Resolve(t.Context(), host+"/team/app:gone", amd64); err == nil {
		t.Error("what was deleted is back")
	}
	if _, got := request(t, http.MethodGet, "http://"+host+"/v2/_catalog", "", nil); !strings.Contains(got, `"team/app"`) {
		t.Errorf("catalog: %s", got)
	}
	if _, got := request(t, http.MethodGet, "http://"+host+"/v2/team/app/tags/list", "", nil); got != `{"name":"team/app","tags":["1"]}` {
		t.Errorf("tags: %s", got)
	}
}

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
	h, err := registry.Handler(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + serve(t, h)
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
	if _, err := registry.Handler(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifests", "torn.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Handler(dir); err == nil || !strings.Contains(err.Error(), "torn.json is damaged") {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Handler(file); err == nil {
		t.Error("a file was taken for a directory")
	}
}

// TestConcurrentUploads has streams wait for each other: a registry that takes
// one upload at a time would never end.
func TestConcurrentUploads(t *testing.T) {
	t.Parallel()
	for name, host := range map[string]string{"embedded": serveEmbedded(t), "distribution": ""} {
		t.Run(name, func(t *testing.T) {
			if host == "" {
				host = serveDistribution(t)
			}
			p, err := newClient(t, nil).Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			letters := []string{"a", "b", "c", "d"}
			var begun, done sync.WaitGroup
			begun.Add(len(letters))
			for _, letter := range letters {
				done.Go(func() {
					content := bytes.Repeat([]byte(letter), 3<<20)
					u, err := p.Stream(t.Context())
					if err != nil {
						t.Error(err)
						begun.Done()
						return
					}
					_, err = u.Write(content[:2<<20])
					begun.Done()
					begun.Wait()
					if err == nil {
						_, err = u.Write(content[2<<20:])
					}
					if err == nil {
						err = u.Commit(digest.FromBytes(content))
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			done.Wait()
		})
	}
}
