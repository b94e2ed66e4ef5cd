package proxy_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/proxy"
)

// TestAliases pushes and pulls whatever tag the client says; what is meant is that
// of the reference.
func TestAliases(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: images()}
	host := serve(t, origin)
	s := start(t, proxy.Options{Base: host + "/team/base:real", Target: host + "/team/app:v1"})
	base, app := image(t), image(t)
	push(t, parse(t, host+"/team/base:real"), base)
	push(t, parse(t, host+"/team/other:real"), image(t))

	wantImage(t, s.ref("base:whatever"), base)
	push(t, s.ref("target:latest"), app)
	wantImage(t, parse(t, host+"/team/app:v1"), app)
	wantImage(t, s.ref("target:another"), app)
	push(t, s.ref("base"), app)
	wantImage(t, parse(t, host+"/team/base:real"), app)
	for _, line := range origin.lines() {
		if strings.Contains(line, "whatever") || strings.Contains(line, "latest") || strings.Contains(line, "another") {
			t.Errorf("the client's tag went to the registry: %s", line)
		}
	}
	for _, name := range []string{"other", "team/other", "team/app", "targets", "target/x", "x/target"} {
		if r := s.want(404, http.MethodGet, "/v2/"+name+"/manifests/real", nil); r.code() != "NAME_UNKNOWN" {
			t.Errorf("%s: %s", name, r.code())
		}
	}
}

// TestDigests asks for manifests by digests that the proxy has seen and for those
// that it hasn't.
func TestDigests(t *testing.T) {
	t.Parallel()
	host := serve(t, images())
	options := proxy.Options{Base: host + "/base:1", Target: host + "/app:1"}
	hidden, shown := image(t), image(t)
	push(t, parse(t, host+"/base:2"), hidden)
	push(t, parse(t, host+"/base:1"), shown)
	manifest := func(alias, digest string) string { return "/v2/" + alias + "/manifests/" + digest }

	s := start(t, options)
	hiddenPath, shownPath := manifest("base", digestOf(t, hidden)), manifest("base", digestOf(t, shown))
	for _, path := range []string{hiddenPath, shownPath} {
		if r := s.want(404, http.MethodGet, path, nil); r.code() != "MANIFEST_UNKNOWN" {
			t.Errorf("%s: %s", path, r.code())
		}
	}
	s.want(200, http.MethodHead, manifest("base", "x"), nil)
	s.want(200, http.MethodGet, shownPath, nil)
	s.want(404, http.MethodGet, hiddenPath, nil)
	s.want(404, http.MethodGet, manifest("target", digestOf(t, shown)), nil)

	s = start(t, options)
	s.want(200, http.MethodGet, manifest("base", "x"), nil)
	s.want(200, http.MethodHead, shownPath, nil)

	// What was pushed by digest, and what an index lists.
	index, err := random.Index(500, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(s.ref("target:1"), index); err != nil {
		t.Fatal(err)
	}
	children, err := partial.Manifests(index)
	if err != nil {
		t.Fatal(err)
	}
	again := start(t, options)
	for _, proxy := range []*setup{s, again} {
		if proxy == again {
			again.want(200, http.MethodGet, manifest("target", "1"), nil)
		}
		for _, child := range children {
			proxy.want(200, http.MethodGet, manifest("target", digestOf(t, child)), nil)
		}
	}
}

// TestForcedDigest has references that name a digest.
func TestForcedDigest(t *testing.T) {
	t.Parallel()
	host := serve(t, images())
	old, current := image(t), image(t)
	push(t, parse(t, host+"/base:1"), old)
	push(t, parse(t, host+"/base:1"), current)
	s := start(t, proxy.Options{Base: host + "/base:1@" + digestOf(t, old), Target: host + "/app@" + digestOf(t, old)})
	wantImage(t, s.ref("base:1"), old)
	wantImage(t, s.ref("base@"+digestOf(t, old)), old)
	s.want(404, http.MethodGet, "/v2/base/manifests/"+digestOf(t, current), nil)

	push(t, s.ref("target"), old)
	wantImage(t, parse(t, host+"/app@"+digestOf(t, old)), old)
	err := remote.Write(s.ref("target"), current)
	if err == nil || !strings.Contains(err.Error(), "DIGEST_INVALID") {
		t.Errorf("another image than the reference's: %v", err)
	}
}

// TestManifestBodies pushes manifests that the proxy has to refuse.
func TestManifestBodies(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: images()}
	host := serve(t, origin)
	s := start(t, proxy.Options{Target: host + "/app:1"})
	put := func(status int, ref string, size int) reply {
		return s.want(status, http.MethodPut, "/v2/target/manifests/"+ref, bytes.NewReader(bytes.Repeat([]byte(" "), size)), "Content-Type", string(types.OCIManifestSchema1))
	}
	if r := put(413, "1", 4<<20+1); r.code() != "SIZE_INVALID" {
		t.Error(r.code())
	}
	if r := put(400, digest.FromString("x").String(), 10); r.code() != "DIGEST_INVALID" {
		t.Error(r.code())
	}
	if lines := origin.lines(); len(lines) > 0 {
		t.Errorf("it went to the registry: %q", lines)
	}

	// One that is too large to be pulled.
	large := start(t, proxy.Options{Base: serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 4<<20+1))
	})) + "/x"})
	large.want(413, http.MethodGet, "/v2/base/manifests/1", nil)
}

// TestMounts mounts from the other alias, and from nowhere else.
func TestMounts(t *testing.T) {
	t.Parallel()
	blob := digest.FromString("x").String()
	tests := []struct {
		name, query string
		elsewhere   bool // base is on another registry
		want        string
	}{
		{"base", "mount=" + blob + "&from=base", false, "from=team%2Fbase&mount=" + strings.ReplaceAll(blob, ":", "%3A")},
		{"base on another registry", "mount=" + blob + "&from=base", true, ""},
		{"target itself", "mount=" + blob + "&from=target", false, ""},
		{"real name", "mount=" + blob + "&from=team/base", false, ""},
		{"another repository", "mount=" + blob + "&from=team/other", false, ""},
		{"any repository", "mount=" + blob, false, ""},
		{"no digest", "mount=x&from=base", false, ""},
		{"two names", "mount=" + blob + "&from=team/other&from=base", false, ""},
		{"whole blob by POST", "digest=" + blob, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("/v2/", say(200))
			mux.HandleFunc("POST /v2/team/app/blobs/uploads/", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("from") == "team/base" {
					w.WriteHeader(201)
					return
				}
				say(202, "Location", "/v2/team/app/blobs/uploads/1")(w, r)
			})
			origin := &spy{inner: mux}
			host := serve(t, origin)
			baseHost := host
			if tt.elsewhere {
				baseHost = serve(t, images())
			}
			s := start(t, proxy.Options{Base: baseHost + "/team/base:1", Target: host + "/team/app:1"})
			r := s.ask(http.MethodPost, "/v2/target/blobs/uploads/?"+tt.query, nil)
			status := 202
			if tt.want != "" {
				status = 201
				if r.header.Get("Location") != "/v2/target/blobs/"+blob {
					t.Errorf("Location %s", r.header.Get("Location"))
				}
			}
			if r.status != status {
				t.Errorf("status %d, want %d: %s", r.status, status, r.body)
			}
			want := strings.TrimSuffix("POST /v2/team/app/blobs/uploads/?"+tt.want, "?")
			if lines := origin.lines(); !slices.Contains(lines, want) || len(lines) != 2 {
				t.Errorf("the registry was asked %q, want %q", lines, want)
			}
		})
	}
}

// TestReferences refuses what can't stand behind an alias.
func TestReferences(t *testing.T) {
	t.Parallel()
	for _, ref := range []string{"https://host/repo:1", "host/UPPER:1", "host/repo:", "host/repo@sha256:1", "host/re po"} {
		if _, err := proxy.New(proxy.Options{Target: ref}); err == nil || !strings.Contains(err.Error(), "target reference") {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"alpine", "docker.io/library/alpine:3", "host:5000/a/b/c", name.DefaultRegistry + "/x"} {
		if _, err := proxy.New(proxy.Options{Base: ref}); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}
