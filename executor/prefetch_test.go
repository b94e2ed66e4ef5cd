package executor_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/registry"
)

// TestPrefetch fetches two images and one that isn't there. Building on one of
// them then asks the registry for no layer.
func TestPrefetch(t *testing.T) {
	k := newKit(t, shell)
	one, two := k.base("one", map[string]string{"a": "1"}), k.base("two", map[string]string{"b": "2"})
	err := k.builder.Prefetch(t.Context(), []string{one, k.host + "/none:1", two, one}, linuxAMD64)
	if err == nil || !strings.Contains(err.Error(), "/none") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
	img, _ := k.pull(two)
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	k.requests = func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, layer.String()) {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		return 0
	}
	k.builder.Registry = registry.New(registry.Options{})
	k.mustBuild("FROM HOST/two\nRUN c=3\n", executor.Options{})
	k.clean()
}
