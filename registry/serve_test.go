package registry_test

import (
	"bytes"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/opencontainers/go-digest"
)

func TestHandlerPersists(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	open := func() string {
		h, err := embedded.Handler(dir)
		if err != nil {
			t.Fatal(err)
		}
		return registrytest.Serve(t, h)
	}
	host := open()
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000)
	f.Push(t.Context(), t, c, host+"/team/app:1")
	f.Push(t.Context(), t, c, host+"/team/app:gone")
	digests := pushIndex(t, c, host+"/multi", "linux/amd64", "linux/arm64")
	if status, _ := registrytest.Request(t, http.MethodDelete, "http://"+host+"/v2/team/app/manifests/gone", "", nil); status != http.StatusAccepted {
		t.Errorf("DELETE answers %d", status)
	}

	host = open()
	im := f.Check(t.Context(), t, c, host+"/team/app:1")
	f.Check(t.Context(), t, c, strings.Replace(im.Reference, "@", ":ignored@", 1))
	for _, tag := range []string{":index", ":list"} {
		im, err := c.Resolve(t.Context(), host+"/multi"+tag, registrytest.AMD64)
		if err != nil || im.Digest != digests["linux/amd64"] {
			t.Errorf("%s: %v", tag, err)
		}
	}
	if _, err := c.Resolve(t.Context(), host+"/team/app:gone", registrytest.AMD64); err == nil {
		t.Error("what was deleted is back")
	}
	if _, got := registrytest.Request(t, http.MethodGet, "http://"+host+"/v2/_catalog", "", nil); !strings.Contains(got, `"team/app"`) {
		t.Errorf("catalog: %s", got)
	}
	if _, got := registrytest.Request(t, http.MethodGet, "http://"+host+"/v2/team/app/tags/list", "", nil); got != `{"name":"team/app","tags":["1"]}` {
		t.Errorf("tags: %s", got)
	}
}

// TestConcurrentUploads has streams wait for each other: a registry that takes
// one upload at a time would never end.
func TestConcurrentUploads(t *testing.T) {
	t.Parallel()
	for name, host := range map[string]string{"embedded": registrytest.ServeEmbedded(t), "distribution": ""} {
		t.Run(name, func(t *testing.T) {
			if host == "" {
				host = serveDistribution(t)
			}
			p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
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
