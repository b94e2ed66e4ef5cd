package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/google/go-containerregistry/pkg/authn"
)

// identity is a keychain with an identity token for all.
type identity struct{ token string }

func (i identity) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{IdentityToken: i.token}), nil
}

// TestTokensElsewhere has a registry whose token server redirects to another host: no
// login goes there, neither in a header nor in a body.
func TestTokensElsewhere(t *testing.T) {
	t.Parallel()
	for name, keychain := range map[string]authn.Keychain{"password": login{user, password}, "identity token": identity{password}} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			var mu sync.Mutex
			var got []string
			thief := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				mu.Lock()
				got = append(got, fmt.Sprint(r.Method, r.RequestURI, r.Header["Authorization"], string(body)))
				mu.Unlock()
				_, _ = io.WriteString(w, `{"token":"t"}`)
			}))
			realm := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+thief+"/token?"+r.URL.RawQuery, status)
			}))
			host := registrytest.Serve(t, say401(realm))
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = keychain })
			if _, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64); err == nil {
				t.Error("it worked")
			}
			for _, text := range got {
				if strings.Contains(text, password) || strings.Contains(text, "[Basic") || strings.HasPrefix(text, http.MethodPost) {
					t.Errorf("%s, %d: another host got %s", name, status, text)
				}
			}
		}
	}
}

// say401 wants a token of the server at host.
func say401(host string) http.HandlerFunc {
	return registrytest.Say(401, "UNAUTHORIZED", "WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="x"`)
}

// TestEndlessAnswers has registries and token servers whose answers have no end: bob
// takes a bounded part.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	const most = 64 << 20 // what fits into buffers of sockets, and the bounds
	for _, path := range []string{"/v2/", "/token 200", "/token 401", "/manifests/ 200", "/manifests/ 404", "/manifests/ 500", "/blobs/ 200", "/blobs/ 403"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			where, text, _ := strings.Cut(path, " ")
			status := 200
			_, _ = fmt.Sscan(text, &status)
			var sent atomic.Int64
			f := registrytest.NewFixture(t, registrytest.AMD64, 100)
			var host string
			host = registrytest.NewFaulty(t, f, func(w http.ResponseWriter, r *http.Request) bool {
				if where == "/token" && r.URL.Path != "/token" {
					say401(host)(w, r)
					return true
				}
				if where == "/v2/" && r.URL.Path != "/v2/" || !strings.Contains(r.URL.Path, where) {
					return false
				}
				w.WriteHeader(status)
				for r.Context().Err() == nil {
					n, err := w.Write(make([]byte, 1<<20))
					if sent.Add(int64(n)); err != nil {
						break
					}
				}
				return true
			})
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit = -1 })
			im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
			if err == nil {
				_, err = registrytest.ReadBlob(t.Context(), im, f.Descs[0].Descriptor)
			}
			if where != "/v2/" {
				registrytest.CheckError(t, err, host, nil)
			}
			if n := sent.Load(); n > most {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}
