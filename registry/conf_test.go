package registry_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/google/go-containerregistry/pkg/authn"
)

// readConf reads files of a registries.conf, in which NAME stands for the values.
func readConf(t *testing.T, replace map[string]string, texts ...string) (*conf.Rules, error) {
	t.Helper()
	var paths []string
	for i, text := range texts {
		for name, value := range replace {
			text = strings.ReplaceAll(text, name, value)
		}
		path := filepath.Join(t.TempDir(), string(rune('a'+i))+".conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return conf.Read(t.Context(), paths...)
}

// hostLogin is a keychain with a password for each host, to tell who got which.
type hostLogin struct{}

func (hostLogin) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: "ann", Password: "secret-of-" + r.RegistryStr()}, nil
}

// basicFor lets in those who bring the password of the host they come to, and notes
// all passwords.
type basicFor struct {
	inner http.Handler

	mu   sync.Mutex
	seen []string
}

func (b *basicFor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, password, ok := r.BasicAuth()
	if ok {
		b.mu.Lock()
		b.seen = append(b.seen, password)
		b.mu.Unlock()
	}
	if password != "secret-of-"+r.Host {
		registrytest.Say(401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="x"`)(w, r)
		return
	}
	b.inner.ServeHTTP(w, r)
}

const mirrorConf = `
[[registry]]
location = "UPSTREAM"
[[registry.mirror]]
location = "MIRROR/cache"
`

// TestMirrors pulls by way of a mirror that works, and of mirrors that fail in every
// way; the image is the same, and one notice says so.
func TestMirrors(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000, 1000)
	blob := "/blobs/" + f.Descs[0].Digest.String()
	cutInTheMiddle := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "300000")
		_, _ = w.Write(f.Layers[0][:100_000])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	tests := map[string]struct {
		fault  func(http.ResponseWriter, *http.Request) bool // of the mirror; nil: it isn't there
		notice string                                        // "": none, upstream isn't asked
	}{
		"works":           {harmless, ""},
		"not there":       {nil, "connection refused"},
		"no such image":   {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Say(404, "MANIFEST_UNKNOWN"))), "no such image"},
		"denied":          {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Say(403, "DENIED"))), "access denied"},
		"500":             {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Say(500, "UNKNOWN"))), "problem of its own"},
		"429":             {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Say(429, "TOOMANYREQUESTS", "Retry-After", "3600"))), "too many requests"},
		"ping 503":        {registrytest.On("GET", "/v2/", registrytest.Always(registrytest.Say(503, ""))), "problem of its own"},
		"reset":           {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Reset)), "connection reset"},
		"another image":   {registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Body("application/json", `{"schemaVersion":2}`))), "neither a manifest"},
		"no config":       {registrytest.On("GET", "/blobs/", registrytest.Always(registrytest.Say(404, "BLOB_UNKNOWN"))), "no such blob"},
		"no blob":         {registrytest.On("GET", blob, registrytest.Always(registrytest.Say(404, "BLOB_UNKNOWN"))), "no such blob"},
		"blob of another": {registrytest.On("GET", blob, registrytest.Always(registrytest.Body("", "short"))), "5 bytes instead of 300000"},
		"blob breaks":     {registrytest.On("GET", blob, registrytest.Always(cutInTheMiddle)), "after 100000 of 300000 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := &meter{inner: newInner(t)}
			upstreamAuth := &basicFor{inner: asked}
			mirrorAuth := &basicFor{inner: newInner(t)}
			upstream := registrytest.Serve(t, upstreamAuth)
			gate := &registrytest.Faulty{Inner: mirrorAuth, Fault: tt.fault}
			mirror := registrytest.Serve(t, gate)
			login := func(o *registry.Options) { o.Keychain = hostLogin{} }
			f.Push(t.Context(), t, registrytest.NewClient(t, login), upstream+"/team/app:1")
			f.Push(t.Context(), t, registrytest.NewClient(t, login), mirror+"/cache/team/app:1")
			before := asked.count("GET /manifests/")
			gate.Armed.Store(true)
			if tt.fault == nil {
				mirror = "127.0.0.1:9"
			}
			conf, err := readConf(t, map[string]string{"UPSTREAM": upstream, "MIRROR": mirror}, mirrorConf)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var notices []string
			c := registrytest.NewClient(t, func(o *registry.Options) {
				o.Keychain, o.Conf = hostLogin{}, conf
				o.Notice = func(s string) {
					mu.Lock()
					defer mu.Unlock()
					notices = append(notices, s)
				}
			})
			im := f.Check(t.Context(), t, c, upstream+"/team/app:1")
			if !strings.HasPrefix(im.Reference, upstream+"/team/app@sha256:") {
				t.Errorf("the image calls itself %s", im.Reference)
			}
			switch {
			case tt.notice == "" && len(notices) > 0:
				t.Errorf("notices %q", notices)
			case tt.notice == "" && asked.count("GET /manifests/") != before:
				t.Error("the registry was asked although the mirror has it")
			case tt.notice != "" && (len(notices) != 1 || !strings.Contains(notices[0], tt.notice) ||
				!strings.HasPrefix(notices[0], "mirror "+mirror+"/cache/team/app of "+upstream+"/team/app: ") ||
				!strings.HasSuffix(notices[0], "going on at "+upstream)):
				t.Errorf("notices %q, want one with %q", notices, tt.notice)
			}
			for host, got := range map[string][]string{upstream: upstreamAuth.seen, mirror: mirrorAuth.seen} {
				for _, password := range got {
					if password != "secret-of-"+host && mirror != "127.0.0.1:9" {
						t.Errorf("%s got %s", host, password)
					}
				}
			}
			if text := strings.Join(notices, "\n"); strings.Contains(text, "secret-of") {
				t.Errorf("notices hold a password: %s", text)
			}
		})
	}
}

// TestMirrorIsNeverPushedTo pushes to a registry that has a mirror, and then mounts
// from the mirror what was pulled from it.
func TestMirrorIsNeverPushedTo(t *testing.T) {
	t.Parallel()
	atMirror, atUpstream := &meter{inner: newInner(t)}, &meter{inner: newInner(t)}
	mirror, upstream := registrytest.Serve(t, atMirror), registrytest.Serve(t, atUpstream)
	conf, err := readConf(t, map[string]string{"UPSTREAM": upstream, "MIRROR": mirror}, mirrorConf)
	if err != nil {
		t.Fatal(err)
	}
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Conf = conf })
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 1000)
	f.Push(t.Context(), t, c, upstream+"/app:1")
	if atMirror.seen != nil {
		t.Errorf("a push asked the mirror: %q", atMirror.seen)
	}
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), mirror+"/cache/app:1")
	im := f.Check(t.Context(), t, c, upstream+"/app:1")
	before := atMirror.bytes.Load()
	p, err := c.Push(t.Context(), mirror+"/result:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range im.Layers {
		if err := p.Blob(t.Context(), l.Descriptor, im.Reference, mustNotOpen(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := atMirror.bytes.Load(); n != before {
		t.Errorf("%d bytes were sent of what could be mounted", n-before)
	}
}

// TestDeadMirrorIsLeft checks that a mirror nobody answers at is asked once.
func TestDeadMirrorIsLeft(t *testing.T) {
	t.Parallel()
	upstream := registrytest.ServeEmbedded(t)
	conf, err := readConf(t, map[string]string{"UPSTREAM": upstream, "MIRROR": "127.0.0.1:9"}, mirrorConf)
	if err != nil {
		t.Fatal(err)
	}
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000)
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), upstream+"/app:1")
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), upstream+"/other:1")
	var notices []string
	c := registrytest.NewClient(t, func(o *registry.Options) {
		o.Conf = conf
		o.Notice = func(s string) { notices = append(notices, s) }
	})
	f.Check(t.Context(), t, c, upstream+"/app:1")
	f.Check(t.Context(), t, c, upstream+"/other:1")
	if len(notices) != 1 {
		t.Errorf("notices %q", notices)
	}
}

func TestBlocked(t *testing.T) {
	t.Parallel()
	m := &meter{inner: newInner(t)}
	host := registrytest.Serve(t, m)
	conf, err := readConf(t, map[string]string{"HOST": host}, "[[registry]]\nlocation = \"HOST/bad\"\nblocked = true\n")
	if err != nil {
		t.Fatal(err)
	}
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Conf = conf })
	_, err = c.Resolve(t.Context(), host+"/bad/app:1", registrytest.AMD64)
	registrytest.CheckError(t, err, host, nil, "blocked", "a.conf", host+"/bad/app:1", "change that file")
	_, err = c.Push(t.Context(), host+"/bad/app:1")
	registrytest.CheckError(t, err, host, nil, "blocked", "a.conf", host+"/bad/app:1")
	if m.seen != nil {
		t.Errorf("it was asked: %q", m.seen)
	}
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000)
	f.Push(t.Context(), t, c, host+"/good/app:1")
}

// TestSearchIsNotFollowed checks that who relies on the search list is told.
func TestSearchIsNotFollowed(t *testing.T) {
	t.Parallel()
	hub := registrytest.ServeEmbedded(t)
	conf, err := readConf(t, map[string]string{"HUB": hub}, "unqualified-search-registries = [\"quay.io\", \"docker.io\"]\n"+
		"[[registry]]\nprefix = \"docker.io\"\nlocation = \"HUB\"\n")
	if err != nil {
		t.Fatal(err)
	}
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000)
	var notices []string
	c := registrytest.NewClient(t, func(o *registry.Options) {
		o.Conf = conf
		o.Notice = func(s string) { notices = append(notices, s) }
	})
	f.Push(t.Context(), t, c, hub+"/library/app:latest")
	if len(notices) > 0 {
		t.Errorf("notices %q", notices)
	}
	f.Check(t.Context(), t, c, "app")
	f.Check(t.Context(), t, c, "docker.io/library/app")
	if len(notices) != 1 || !strings.Contains(notices[0], "unqualified-search-registries") || !strings.Contains(notices[0], "a.conf") {
		t.Errorf("notices %q", notices)
	}
}
