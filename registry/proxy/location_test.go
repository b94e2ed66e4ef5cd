package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/proxy"
)

// TestUploadLocations has a registry that sends uploads to every kind of URL. The
// client's requests come back through the proxy, and with credentials only where
// those belong.
func TestUploadLocations(t *testing.T) {
	t.Parallel()
	blob := []byte("layer")
	blobDigest := digest.FromBytes(blob).String()
	finish := "digest=" + strings.ReplaceAll(blobDigest, ":", "%3A")
	tests := []struct {
		name     string
		location string // HOST is the registry, OTHER another host
		want     string // what is asked for in the end, at OTHER if it begins so; "": 502
	}{
		{"absolute path", "/v2/team/app/blobs/uploads/u", "/v2/team/app/blobs/uploads/u?"},
		{"relative path", "u1", "/v2/team/app/blobs/uploads/u1?"},
		{"path above", "../x/u", "/v2/team/app/blobs/x/u?"},
		{"query", "/v2/team/app/blobs/uploads/u?_state=a%2Fb%3D&x", "/v2/team/app/blobs/uploads/u?_state=a%2Fb%3D&x&"},
		{"query alone", "?s=1", "/v2/team/app/blobs/uploads/?s=1&"},
		{"absolute", "http://HOST/v2/team/app/blobs/uploads/u?s=1", "/v2/team/app/blobs/uploads/u?s=1&"},
		{"behind TLS that ends early", "https://HOST/v2/u", "/v2/u?"},
		{"opaque", "http://HOST/artifacts-uploads/namespaces/x/y?sig=A%2B", "/artifacts-uploads/namespaces/x/y?sig=A%2B&"},
		{"no scheme", "//HOST/u", "/u?"},
		{"user and fragment", "http://ann:s3cr3t@HOST/u#s3cr3t", "/u?"},
		{"another host", "http://OTHER/u?sig=1", "OTHER/u?sig=1&"},
		{"another host, no scheme", "//OTHER/u", "OTHER/u?"},
		{"escaped path", "/u%2F1/%7Ex", "/u%2F1/%7Ex?"},
		{"none", "", ""},
		{"another scheme", "ftp://HOST/u", ""},
		{"script", "javascript:alert(1)", ""},
		{"no URL", "http://[", ""},
		{"no host", "http:///u", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			end := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got, _ := io.ReadAll(r.Body)
				switch {
				case r.Method == http.MethodPut && !bytes.Equal(got, blob):
					w.WriteHeader(400)
				case r.Method == http.MethodPut:
					say(201, "Location", "http://anywhere.example/s3cr3t")(w, r)
				default:
					say(204, "Range", "0-4")(w, r)
				}
			})
			other := &spy{inner: end}
			otherHost := serve(t, other)
			var host string
			mux := http.NewServeMux()
			mux.Handle("/", end)
			mux.HandleFunc("POST /v2/team/app/blobs/uploads/{$}", func(w http.ResponseWriter, r *http.Request) {
				say(202, "Location", strings.NewReplacer("HOST", host, "OTHER", otherHost).Replace(tt.location))(w, r)
			})
			origin := &spy{inner: basicOnly(mux)}
			host = serve(t, origin)
			s := start(t, proxy.Options{Target: host + "/team/app:1", Auth: dockerConfig(t, host, user, password)})
			r := s.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil)
			if tt.want == "" {
				if r.status != 502 {
					t.Errorf("status %d, want 502: %s", r.status, r.header.Get("Location"))
				}
				return
			}
			location := r.header.Get("Location")
			if r.status != 202 || !strings.HasPrefix(location, "/v2/target/blobs/uploads/") || strings.ContainsAny(location, "?%") {
				t.Fatalf("status %d, Location %q", r.status, location)
			}
			s.want(204, http.MethodGet, location, nil)
			done := s.want(201, http.MethodPut, location+"?digest="+blobDigest+"&x=y", bytes.NewReader(blob), "Cookie", "x", "Authorization", "Basic x")
			if got := done.header.Get("Location"); got != "/v2/target/blobs/"+blobDigest {
				t.Errorf("Location of the blob is %q", got)
			}
			s.want(404, http.MethodPut, location+"?digest="+blobDigest, bytes.NewReader(blob))

			at, want := origin, tt.want
			if away, ok := strings.CutPrefix(tt.want, "OTHER"); ok {
				at, want = other, away
				for _, r := range other.requests() {
					if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
						t.Errorf("another host got %v", r.Header)
					}
				}
			}
			if lines := at.lines(); !slices.Contains(lines, "PUT "+want+finish) {
				t.Errorf("asked for %q, want %q", lines, want+finish)
			}
		})
	}
}

// TestUploadMoves has a registry that names a new Location after each part.
func TestUploadMoves(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", say(200))
	mux.HandleFunc("POST /v2/app/blobs/uploads/", say(202, "Location", "/u?n=0", "OCI-Chunk-Min-Length", "5", "Range", "0-0"))
	mux.HandleFunc("PATCH /u", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		say(202, "Location", "/u?n="+r.Header.Get("Content-Range"), "Range", "0-9")(w, r)
	})
	mux.HandleFunc("DELETE /u", say(204))
	origin := &spy{inner: mux}
	s := start(t, proxy.Options{Target: serve(t, origin) + "/app:1"})
	begun := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil)
	location := begun.header.Get("Location")
	if begun.header.Get("Oci-Chunk-Min-Length") != "5" || begun.header.Get("Range") != "0-0" {
		t.Errorf("%v", begun.header)
	}
	for _, part := range []string{"0-4", "5-9"} {
		r := s.want(202, http.MethodPatch, location, strings.NewReader("12345"), "Content-Range", part)
		if r.header.Get("Range") != "0-9" {
			t.Errorf("%v", r.header)
		}
		location = r.header.Get("Location")
	}
	s.want(204, http.MethodDelete, location, nil)
	s.want(404, http.MethodDelete, location, nil)
	want := []string{"GET /v2/", "POST /v2/app/blobs/uploads/", "PATCH /u?n=0", "PATCH /u?n=0-4", "DELETE /u?n=5-9"}
	if got := origin.lines(); !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
}

// TestUploadIDs uses an upload of one alias by way of the other, and IDs that
// nobody gave.
func TestUploadIDs(t *testing.T) {
	t.Parallel()
	host := serve(t, images())
	s := start(t, proxy.Options{Base: host + "/base:1", Target: host + "/app:1"})
	location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
	_, id, _ := strings.Cut(location, "uploads/")
	for _, path := range []string{"/v2/base/blobs/uploads/" + id, "/v2/target/blobs/uploads/" + strings.ToLower(id), "/v2/target/blobs/uploads/1"} {
		if r := s.want(404, http.MethodPatch, path, strings.NewReader("x")); r.code() != "BLOB_UPLOAD_UNKNOWN" {
			t.Errorf("%s: %s", path, r.code())
		}
	}
	if r := s.want(400, http.MethodPut, location+"?digest=sha256:1", nil); r.code() != "DIGEST_INVALID" {
		t.Error(r.code())
	}
	s.want(202, http.MethodPatch, location, strings.NewReader("x"))
}

// TestRedirects has a registry that keeps blobs elsewhere: on its own host, which
// only the proxy can reach, and in an object store, which needs no credentials.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		location string
		status   int
		want     string // Location, or content if status is 200
	}{
		"own host":              {"/storage/x", 200, "content"},
		"own host, absolute":    {"http://HOST/storage/x", 200, "content"},
		"own host, TLS":         {"https://HOST/storage/x", 200, "content"},
		"by own host to others": {"/storage/away", 307, "http://store.example/x?sig=1"},
		"another host":          {"http://store.example/b?X-Amz-Signature=a%2Fb&c", 307, "http://store.example/b?X-Amz-Signature=a%2Fb&c"},
		"another host, TLS":     {"https://store.example/b", 307, "https://store.example/b"},
		"another port":          {"http://127.0.0.1:1/b", 307, "http://127.0.0.1:1/b"},
		"user":                  {"https://ann:s3cr3t@store.example/b", 307, "https://store.example/b"},
		"circle":                {"/v2/app/blobs/" + someDigest, 502, ""},
		"nowhere":               {"", 502, ""},
		"another scheme":        {"file:///etc/passwd", 502, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var host string
			mux := http.NewServeMux()
			mux.HandleFunc("/v2/", say(200))
			mux.HandleFunc("/v2/app/blobs/", func(w http.ResponseWriter, r *http.Request) {
				say(307, "Location", strings.ReplaceAll(tt.location, "HOST", host), "Set-Cookie", "s3cr3t")(w, r)
			})
			mux.HandleFunc("/storage/x", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "content") })
			mux.HandleFunc("/storage/away", say(302, "Location", "http://store.example/x?sig=1"))
			host = serve(t, basicOnly(mux))
			s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password)})
			r := s.ask(http.MethodGet, "/v2/target/blobs/"+someDigest, nil)
			status := tt.status
			if name == "by own host to others" {
				status = 302
			}
			got := r.header.Get("Location")
			if status == 200 {
				got = r.body
			}
			if r.status != status || got != tt.want {
				t.Errorf("status %d, %q; want %d, %q", r.status, got, status, tt.want)
			}
		})
	}
}

// TestRedirectFollowed pulls a blob that is in an object store, as clients do.
func TestRedirectFollowed(t *testing.T) {
	t.Parallel()
	store := &spy{inner: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "content") })}
	storeHost := serve(t, store)
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", say(200))
	mux.HandleFunc("/v2/app/blobs/", say(307, "Location", "http://"+storeHost+"/x?sig=1"))
	host := serve(t, basicOnly(mux))
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password)})
	resp, err := http.Get("http://" + s.host + "/v2/target/blobs/" + someDigest)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "content" {
		t.Errorf("%q, %v", body, err)
	}
	if got := store.requests(); len(got) != 1 || got[0].Header.Get("Authorization") != "" {
		t.Errorf("the store got %v", store.lines())
	}
}

// TestNoDowngrade has a registry with TLS that sends its clients to plain HTTP.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", say(200))
	mux.HandleFunc("/v2/app/blobs/", say(307, "Location", "http://store.example/x"))
	mux.HandleFunc("/v2/app/blobs/uploads/", say(202, "Location", "http://store.example/x"))
	secure := httptest.NewTLSServer(mux)
	t.Cleanup(secure.Close)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		path := map[string]string{http.MethodGet: someDigest, http.MethodPost: "uploads/"}[method]
		status, err := proxy.AskVerified(t.Context(), secure, method, "/v2/target/blobs/"+path)
		if err != nil || status != 502 {
			t.Errorf("%s: status %d, want 502: %v", method, status, err)
		}
	}
}

// TestMirrors reads from any host by the additional credentials, and only reads.
func TestMirrors(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: basicOnly(images())}
	host := serve(t, origin)
	im := image(t)
	filler := start(t, proxy.Options{Target: host + "/team/lib:1", Auth: dockerConfig(t, host, user, password)})
	push(t, filler.ref("target"), im)
	manifest, query := "/v2/team/lib/manifests/1", "?ns="+host
	layers, err := im.Layers()
	if err != nil {
		t.Fatal(err)
	}
	blob := "/v2/team/lib/blobs/" + digestOf(t, layers[0])

	s := start(t, proxy.Options{Target: host + "/app:1", AdditionalAuth: dockerConfig(t, host, user, password)})
	for _, path := range []string{manifest, blob, "/v2/team/lib/manifests/" + digestOf(t, im)} {
		s.want(200, http.MethodGet, path+query, nil)
		s.want(200, http.MethodHead, path+query, nil)
		s.want(404, http.MethodGet, path, nil)
		s.want(404, http.MethodPut, path+query, nil)
		s.want(404, http.MethodDelete, path+query, nil)
	}
	// ns says what is meant, whatever the name.
	s.want(404, http.MethodGet, "/v2/target/manifests/1"+query, nil)
	if lines := origin.lines(); !slices.Contains(lines, "GET /v2/target/manifests/1") {
		t.Errorf("asked for %q", lines[len(lines)-3:])
	}
	for _, path := range []string{
		"/v2/team/lib/blobs/uploads/" + query, "/v2/team/lib/tags/list" + query, "/v2/_catalog" + query, manifest + "?ns=", manifest + query + "&ns=" + host,
		manifest + "?ns=" + host + "/x", manifest + "?ns=ann:s3cr3t@" + host, manifest + "?ns=%2e%2e", manifest + "?ns=http://" + host, manifest + query + ";x", manifest + "?ns=%00", manifest + "?ns=a%0d%0ab",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if r := s.ask(method, path, nil); r.status != 404 {
				t.Errorf("%s %s: status %d", method, path, r.status)
			}
		}
	}

	// The credentials of base and target are not for mirrors.
	other := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password), AdditionalAuth: parseConfig(t, `{"auths":{"`+host+`":{}}}`)})
	before := len(origin.requests())
	other.want(403, http.MethodGet, manifest+query, nil)
	for _, r := range origin.requests()[before:] {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("credentials of an alias went along: %v", r.Header)
		}
	}
}

// TestMirrorsStayAway asks for hosts that are this machine or its link, under
// several names.
func TestMirrorsStayAway(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	reached := 0
	host := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		reached++
	}))
	_, port, _ := strings.Cut(host, ":")
	s := start(t, proxy.Options{Target: "registry.example/app:1"})
	for _, ns := range []string{
		host, "localhost:" + port, "127.1.2.3:" + port, "[::1]:" + port, "[::ffff:127.0.0.1]:" + port, "0.0.0.0:" + port, "127.1:" + port,
		"169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", s.host,
	} {
		s.want(502, http.MethodGet, "/v2/x/manifests/1?ns="+ns, nil)
	}
	if reached > 0 {
		t.Errorf("%d requests have reached this machine", reached)
	}
}

// TestStatuses has a registry answer each request of a push with all statuses that
// real ones answer it with: the client gets that of the distribution-spec.
func TestStatuses(t *testing.T) {
	t.Parallel()
	blob := []byte("layer")
	for method, statuses := range map[string][]int{"POST": {200, 202, 204}, "PATCH": {200, 201, 202, 204}, "PUT": {200, 201, 202, 204}} {
		for _, status := range statuses {
			mux := http.NewServeMux()
			mux.HandleFunc("/v2/", say(200))
			answer := func(usual int) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					if r.Method == method {
						usual = status
					}
					say(usual, "Location", "/u")(w, r)
				}
			}
			mux.HandleFunc("POST /v2/app/blobs/uploads/", answer(202))
			mux.HandleFunc("PATCH /u", answer(202))
			mux.HandleFunc("PUT /u", answer(201))
			mux.HandleFunc("PUT /v2/app/manifests/1", answer(201))
			s := start(t, proxy.Options{Target: serve(t, mux) + "/app:1"})
			location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
			location = s.want(202, http.MethodPatch, location, bytes.NewReader(blob)).header.Get("Location")
			s.want(201, http.MethodPut, location+"?digest="+digest.FromBytes(blob).String(), nil)
			s.want(201, http.MethodPut, "/v2/target/manifests/1", strings.NewReader("{}"))
		}
	}
}
