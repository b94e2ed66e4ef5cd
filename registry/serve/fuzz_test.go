package serve_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/serve"
)

// FuzzHandler sends a registry with an image any request. It may refuse it, but not
// fail, tell a path, write beside its directory, or be unable to start again.
func FuzzHandler(f *testing.F) {
	const image = `{"config":{"digest":"sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}` // of "x"
	blob, manifest := digest.FromString("x").String(), digest.FromString(image).String()
	for _, seed := range [][4]string{
		{"GET", "/v2/", "", ""},
		{"GET", "/v2/a/blobs/" + blob, "bytes=-3", ""},
		{"HEAD", "/v2/a/manifests/1", "", ""},
		{"GET", "/v2/a/tags/list?n=1&last=0", "", ""},
		{"GET", "/v2/_catalog?n=1", "", ""},
		{"GET", "/v2/a/referrers/" + manifest + "?artifactType=x", "", ""},
		{"PUT", "/v2/a/manifests/2", "application/vnd.oci.image.manifest.v1+json", image},
		{"PUT", "/v2/a/manifests/" + manifest + "?tag=a&tag=b", "text/plain", image},
		{"DELETE", "/v2/a/manifests/" + manifest, "", ""},
		{"DELETE", "/v2/a/blobs/" + blob, "", ""},
		{"POST", "/v2/a/blobs/uploads/?digest=" + blob, "", "x"},
		{"POST", "/v2/b/blobs/uploads/?mount=" + blob + "&from=a", "", ""},
		{"PATCH", "/v2/a/blobs/uploads/x", "0-0", "x"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	parent := f.TempDir()
	dir := filepath.Join(parent, "data")
	h, err := serve.Handler(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, header, body string) {
		ask := func(method, target, header, body string) *httptest.ResponseRecorder {
			req, err := http.NewRequest(method, "http://registry"+target, strings.NewReader(body))
			if err != nil {
				t.Skip("no request")
			}
			for _, name := range []string{"Content-Type", "Content-Range", "Range"} {
				req.Header.Set(name, header)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			return w
		}
		ask("POST", "/v2/a/blobs/uploads/?digest="+blob, "", "x")
		ask("PUT", "/v2/a/manifests/1", "text/plain", image)
		if method == "PATCH" || method == "PUT" {
			begun := ask("POST", "/v2/a/blobs/uploads/", "", "").Header().Get("Location")
			target = strings.Replace(target, "/v2/a/blobs/uploads/x", begun, 1)
			defer ask("DELETE", begun, "", "")
		}
		w := ask(method, target, header, body)
		if w.Code >= 500 || strings.Contains(w.Body.String(), parent) {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
		if w.Code == http.StatusCreated && method == "PUT" && strings.Contains(target, "/manifests/") {
			if got := ask("GET", w.Header().Get("Location"), "", ""); got.Code != 200 || got.Body.String() != body {
				t.Errorf("what was pushed is %d: %q", got.Code, got.Body)
			}
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("beside the registry: %v, %v", entries, err)
		}
		if w.Code == http.StatusCreated || w.Code == http.StatusAccepted {
			if _, err := serve.Handler(dir); err != nil {
				t.Error(err)
			}
		}
	})
}
