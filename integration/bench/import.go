package main

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/bobbuild/bob/integration/harness"
)

const (
	importName  = "g: import of a cache"
	importSteps = 200
)

// importCaches builds an image of many steps with a cache in the registry, and the
// given number of times on machines that have nothing else. It writes the median time
// and how many requests the registry got for the cache.
func importCaches(ctx context.Context, lab *harness.Lab, runs int, w io.Writer) error {
	registry, err := lab.Registry()
	if err != nil {
		return err
	}
	if _, err := lab.Image(ctx, "busybox"); err != nil {
		return err
	}
	dir, err := lab.TempDir("import")
	if err != nil {
		return err
	}
	var requests atomic.Int64
	server := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		if strings.Contains(p.In.URL.Path, "/cache-of-many/") {
			requests.Add(1)
		}
		p.SetURL(&url.URL{Scheme: "http", Host: registry.Host})
		p.Out.Host = p.In.Host
	}})
	defer server.Close()
	prefix := strings.TrimPrefix(server.URL, "http://") + strings.TrimPrefix(registry.Prefix, registry.Host)

	var text strings.Builder
	text.WriteString("FROM " + prefix + "/busybox\n")
	for n := range importSteps {
		fmt.Fprintf(&text, "RUN echo %d > /file-%d\n", n, n)
	}
	if err := os.MkdirAll(filepath.Join(dir, "context"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "context", "Dockerfile"), []byte(text.String()), 0o644); err != nil {
		return err
	}
	if err := lab.User.Own(dir); err != nil {
		return err
	}
	c := &contest{Lab: lab, dir: dir}
	build := func(machine, caches string) (measure, error) {
		return c.time(ctx, harness.Invocation{
			Dir: dir, Cache: filepath.Join(dir, machine),
			Args: []string{"build", "--progress=plain", caches + "=type=registry,ref=" + prefix + "/cache-of-many:1", "context"},
		})
	}
	if _, err := build("first", "--cache-to"); err != nil {
		return err
	}
	var took []measure
	most := int64(0)
	for n := range runs {
		requests.Store(0)
		m, err := build(fmt.Sprintf("new-%d", n), "--cache-from")
		if err != nil {
			return err
		}
		took, most = append(took, m), max(most, requests.Load())
	}
	_, err = fmt.Fprintf(w, "%s of %d steps: %.2f s, %d requests to the registry for it\n",
		importName, importSteps, median(took).Seconds(), most)
	return err
}
