package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shortIdle is how long servers may be silent in these tests.
const shortIdle = 3 * time.Second

// half answers as inner does, and stops in the middle of the body.
func half(inner http.Handler) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		inner.ServeHTTP(got, r)
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = w.Write(got.Body.Bytes()[:got.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		registrytest.Hang(w, r)
	}
}

// A hanging is a kind of request, and what makes it.
type hanging struct {
	method, path string // a part of the path
	op           string // of the error
	use          func(context.Context, *registry.Client, string) error
	says         bool                                             // its answer has a body, which may stop
	before       func(http.ResponseWriter, *http.Request) bool    // may answer in place of what hangs; nil: never
	elsewhere    func(inner http.Handler, to string) http.Handler // sends it to another host; nil: it stays
	keychain     authn.Keychain
}

// hangings are all kinds of requests that a client makes.
func hangings(f *registrytest.Fixture) map[string]hanging {
	push, pull, large := uses(f)
	streamOf := func(content []byte) func(context.Context, *registry.Client, string) error {
		return func(ctx context.Context, c *registry.Client, ref string) error {
			p, err := c.Push(ctx, ref)
			if err != nil {
				return err
			}
			u, err := p.Stream(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = u.Close() }()
			if _, err := u.Write(content); err != nil {
				return err
			}
			return u.Commit(digest.FromBytes(content))
		}
	}
	stream, small := streamOf(bytes.Repeat([]byte("12345678"), 1<<18)), streamOf([]byte("small"))
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(f.Layers[0])))
		_, _ = w.Write(f.Layers[0][:1000])
	}
	layer, config := f.Descs[0].Digest.String(), digest.FromBytes(f.Config).String()
	return map[string]hanging{
		"API":                {method: "GET", path: "/v2/", use: pull, op: "connect to"},
		"manifest":           {method: "GET", path: "/manifests/", use: pull, op: "pull manifest", says: true},
		"config":             {method: "GET", path: config, use: pull, op: "pull config", says: true},
		"blob":               {method: "GET", path: layer, use: pull, op: "pull blob", says: true},
		"rest of a blob":     {method: "GET", path: layer, use: pull, op: "pull blob", says: true, before: registrytest.On("GET", layer, registrytest.Times(1, cut))},
		"blob elsewhere":     {method: "GET", path: layer, use: pull, op: "pull blob", says: true, elsewhere: redirectBlobs},
		"look for a blob":    {method: "HEAD", path: "/blobs/", use: push, op: "push blob"},
		"begin of an upload": {method: "POST", path: "/uploads/", use: push, op: "prepare push to"},
		"upload at once":     {method: "PUT", path: "/uploads/", use: push, op: "push blob"},
		"upload in parts":    {method: "PATCH", path: "/uploads/", use: large, op: "push blob"},
		"upload of a stream": {method: "PATCH", path: "/uploads/", use: stream, op: "push blob"},
		"upload elsewhere":   {method: "PATCH", path: "/uploads/", use: stream, op: "push blob", elsewhere: moveUploads},
		"small stream":       {method: "PUT", path: "/uploads/", use: small, op: "push blob"},
		"end of a stream":    {method: "PUT", path: "/uploads/", use: stream, op: "push blob"},
		"state of an upload": {method: "GET", path: "/uploads/", use: large, op: "push blob", before: registrytest.On("PATCH", "/uploads/", registrytest.Always(registrytest.Reset))},
		"push of a manifest": {method: "PUT", path: "/manifests/", use: push, op: "push manifest"},
		"token":              {method: "GET", path: "/token", use: pull, op: "authenticate for", says: true, elsewhere: wantToken, keychain: login{user, password}},
		"token for a token":  {method: "POST", path: "/token", use: pull, op: "authenticate for", says: true, elsewhere: wantToken, keychain: identity{password}},
	}
}

// uses are a push and a pull of the fixture, and a push of a blob that is sent in
// parts.
func uses(f *registrytest.Fixture) (push, pull, large func(context.Context, *registry.Client, string) error) {
	push = func(ctx context.Context, c *registry.Client, ref string) error {
		p, err := c.Push(ctx, strings.Replace(ref, "/app:", "/new:", 1))
		if err == nil {
			err = p.Blob(ctx, f.Descs[0].Descriptor, "", registrytest.Opener(f.Layers[0]))
		}
		if err == nil {
			err = p.Blob(ctx, registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config), "", registrytest.Opener(f.Config))
		}
		if err == nil {
			_, err = p.Manifest(ctx, f.MediaType, f.Manifest)
		}
		return err
	}
	pull = func(ctx context.Context, c *registry.Client, ref string) error {
		im, err := c.Resolve(ctx, ref, registrytest.AMD64)
		if err == nil {
			_, err = registrytest.ReadBlob(ctx, im, f.Descs[0].Descriptor)
		}
		return err
	}
	content := bytes.Repeat([]byte("12345678"), 1<<20)
	large = func(ctx context.Context, c *registry.Client, ref string) error {
		p, err := c.Push(ctx, ref)
		if err == nil {
			err = p.Blob(ctx, registrytest.Descriptor("", content), "", registrytest.Opener(content))
		}
		return err
	}
	return push, pull, large
}

// redirectBlobs is a registry that has its layers elsewhere.
func redirectBlobs(inner http.Handler, to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/sha256:") && r.Method == http.MethodGet {
			http.Redirect(w, r, "http://"+to+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// moveUploads is a registry that takes uploads elsewhere.
func moveUploads(inner http.Handler, to string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w = &moved{w, to}
		}
		inner.ServeHTTP(w, r)
	})
}

type moved struct {
	http.ResponseWriter
	to string
}

func (m *moved) WriteHeader(status int) {
	location, err := url.Parse(m.Header().Get("Location"))
	if err != nil {
		panic(err)
	}
	m.Header().Set("Location", "http://"+m.to+location.RequestURI())
	m.ResponseWriter.WriteHeader(status)
}

// wantToken is a registry that wants tokens of a server elsewhere.
func wantToken(_ http.Handler, to string) http.Handler { return say401(to) }

// TestEveryRequestHangs has servers take each kind of request and not answer it, or stop
// in the middle of the answer: there is an error that names what was asked, and of whom.
func TestEveryRequestHangs(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000)
	faults := map[string]func(inner http.Handler) func(http.ResponseWriter, *http.Request){
		"no answer":      func(http.Handler) func(http.ResponseWriter, *http.Request) { return registrytest.Hang },
		"half an answer": half,
	}
	for how, faulty := range faults {
		for name, tt := range hangings(f) {
			if how != "no answer" && !tt.says {
				continue
			}
			inner := newInner(t) // one that others push to has what is to be pushed
			f.Push(t.Context(), t, registrytest.NewClient(t, nil), registrytest.Serve(t, inner)+"/app:1")
			fault := faulty(inner)
			hanging := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.before != nil && tt.before(w, r) || registrytest.On(tt.method, tt.path, registrytest.Always(fault))(w, r) {
					return
				}
				inner.ServeHTTP(w, r)
			})
			guilty := registrytest.Serve(t, hanging)
			host := guilty
			if tt.elsewhere != nil {
				host = registrytest.Serve(t, tt.elsewhere(inner, guilty))
			}
			c := registrytest.NewClient(t, func(o *registry.Options) {
				o.IdleTimeout, o.Patience.Limit = shortIdle, shortIdle/2
				if tt.keychain != nil {
					o.Keychain = tt.keychain
				}
			})
			ended := make(chan error, 1) // all wait at the same time
			go func() { ended <- tt.use(t.Context(), c, host+"/app:1") }()
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				registrytest.CheckError(t, <-ended, host, nil, tt.op, tt.method+" to "+guilty+" stalled: no byte moved for ")
			})
		}
	}
}

// TestMirrorHangs has a mirror that takes requests and doesn't answer: the image comes
// from the registry.
func TestMirrorHangs(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000)
	inner := newInner(t)
	upstream := registrytest.Serve(t, inner)
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), upstream+"/app:1")
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), upstream+"/cache/app:1") // as the mirror has it
	for _, path := range []string{"/v2/", "/manifests/", "/blobs/" + f.Descs[0].Digest.String()} {
		for how, fault := range map[string]func(http.ResponseWriter, *http.Request){"no answer": registrytest.Hang, "half an answer": half(inner)} {
			if testing.Short() && how != "no answer" {
				continue
			}
			t.Run(path+", "+how, func(t *testing.T) {
				t.Parallel()
				mirror := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !registrytest.On("GET", path, registrytest.Always(fault))(w, r) {
						inner.ServeHTTP(w, r)
					}
				}))
				conf, err := readConf(t, map[string]string{"UPSTREAM": upstream, "MIRROR": mirror}, mirrorConf)
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var notices []string
				c := registrytest.NewClient(t, func(o *registry.Options) {
					o.IdleTimeout, o.Conf = shortIdle, conf
					o.Notice = func(s string) {
						mu.Lock()
						defer mu.Unlock()
						notices = append(notices, s)
					}
				})
				f.Check(t.Context(), t, c, upstream+"/app:1")
				mu.Lock()
				defer mu.Unlock()
				told := func(notice string) bool { return strings.Contains(notice, "GET to "+mirror+" stalled") }
				if path != "/v2/" && !slices.ContainsFunc(notices, told) {
					t.Errorf("notices %q", notices)
				}
			})
		}
	}
}
