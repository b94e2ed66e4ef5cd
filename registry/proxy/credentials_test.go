package proxy_test

import (
	"crypto/x509"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/proxy"
)

// TestKeys finds the login for a repository by every way to write its host.
func TestKeys(t *testing.T) {
	t.Parallel()
	const ecr = "000000000000.dkr.ecr.dummy-host-zone.amazonaws.com"
	hub := []string{"docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/", "index.docker.io/v1/", "https://docker.io"}
	tests := []struct {
		repo string
		keys []string
		want string // the key whose login is right; "": none is
	}{
		{"example.com/a/b", []string{"example.com"}, "example.com"},
		{"example.com/a/b", []string{"https://example.com/v2/"}, "https://example.com/v2/"},
		{"example.com/a/b", []string{"example.com:443"}, "example.com:443"},
		{"example.com:443/a/b", []string{"example.com"}, "example.com"},
		{"example.com:5000/a/b", []string{"example.com:5000"}, "example.com:5000"},
		{"example.com:5000/a/b", []string{"example.com", "example.com:5001", "example.org"}, ""},
		{"example.com/a/b", []string{"EXAMPLE.com"}, "EXAMPLE.com"},
		{"example.com/a/b/c", []string{"example.com", "example.com/a", "example.com/a/b", "example.com/a/b/c/d", "example.com/a/bb"}, "example.com/a/b"},
		{"example.com/ab", []string{"example.com/a"}, ""},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com/x", []string{ecr}, ecr},
		{"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/x", []string{ecr}, ecr},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com/x", []string{ecr, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"}, "123456789012.dkr.ecr.eu-west-1.amazonaws.com"},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example/x", []string{ecr}, ""},
		{"evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com", []string{ecr}, ""},
		{"1.dkr.ecr.eu-west-1.amazonaws.com/x", []string{ecr}, ""},
		{"docker.io.example.com/x", hub, ""},
	}
	for _, key := range hub {
		for _, repo := range []string{"alpine", "docker.io/library/alpine", "index.docker.io/team/x", "registry-1.docker.io/team/x"} {
			tests = append(tests, struct {
				repo string
				keys []string
				want string
			}{repo, []string{key}, key})
		}
	}
	for _, tt := range tests {
		t.Run(tt.repo+" by "+strings.Join(tt.keys, " "), func(t *testing.T) {
			t.Parallel()
			var auths []string
			for _, key := range tt.keys {
				auths = append(auths, `"`+key+`":{"username":"ann","password":"s3cr3t of `+key+`"}`)
			}
			credentials, err := proxy.ParseHosts("{" + strings.Join(auths, ",") + "}")
			if err != nil {
				t.Fatal(err)
			}
			got, err := proxy.PasswordFor(credentials, tt.repo)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimSuffix("s3cr3t of "+tt.want, "s3cr3t of "); got != want {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

// TestBadCredentials reads what is no credentials. No error repeats any of it.
func TestBadCredentials(t *testing.T) {
	t.Parallel()
	docker, hosts := proxy.ParseDockerConfig, proxy.ParseHosts
	for _, tt := range []struct {
		parse func(string) (proxy.Credentials, error)
		text  string
		want  string
	}{
		{docker, `s3cr3t`, "not JSON from byte 1 on"},
		{docker, `{"auths":{"h":{"auth":"s3cr3t`, "not JSON"},
		{docker, `{"auths":"s3cr3t"}`, "not the JSON that is wanted"},
		{docker, `{"auths":{"host":"s3cr3t"}}`, `login of "host"`},
		{docker, `{"auths":{"host":{"auth":"s3cr3t!"}}}`, `login of "host"`},
		{docker, `{"auths":{"host":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("s3cr3t")) + `"}}}`, `login of "host"`},
		{hosts, `["s3cr3t"]`, "not the JSON that is wanted"},
		{hosts, `{"host":{"password":12345678}}`, `login of "host"`},
	} {
		_, err := tt.parse(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.text, err, tt.want)
			continue
		}
		for _, secret := range append(secrets, "12345678") {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the secret: %v", err)
			}
		}
	}
	for _, parse := range []func(string) (proxy.Credentials, error){docker, hosts} {
		for _, text := range []string{"", "\n", "{}"} {
			if _, err := parse(text); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

// basicOnly guards a registry; like a hostile one it sends back what it gets.
func basicOnly(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			echo(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	_, p, _ := r.BasicAuth()
	w.Header().Set("WWW-Authenticate", `Negotiate, Basic realm="x, y"`)
	w.Header().Set("Set-Cookie", "session=s3cr3t")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"` + r.Header.Get("Authorization") + " " + p + `"}]}`))
}

func TestBasic(t *testing.T) {
	t.Parallel()
	host := serve(t, basicOnly(images()))
	for name, credentials := range map[string]proxy.Credentials{
		"auth":                  dockerConfig(t, host, user, password),
		"username and password": parseConfig(t, `{"auths":{"`+host+`":{"username":"ann","password":"`+password+`"}}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			im := image(t)
			s := start(t, proxy.Options{Target: host + "/" + strings.ReplaceAll(name, " ", "-") + ":1", Auth: credentials})
			push(t, s.ref("target"), im)
			wantImage(t, s.ref("target"), im)
		})
	}
	other := start(t, proxy.Options{Target: host + "/app:1", AdditionalAuth: dockerConfig(t, host, user, password)})
	push(t, other.ref("target"), image(t))

	for name, credentials := range map[string]proxy.Credentials{"none": {}, "wrong": dockerConfig(t, host, user, "s3cr3t-wrong")} {
		s := start(t, proxy.Options{Target: host + "/app:1", Auth: credentials, AdditionalAuth: proxy.Credentials{}})
		if r := s.want(403, http.MethodPost, "/v2/target/blobs/uploads/", nil, "Authorization", "Basic x"); r.code() != "DENIED" {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	// Auth comes before AdditionalAuth even if it is the wrong one.
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, "s3cr3t-wrong"), AdditionalAuth: dockerConfig(t, host, user, password)})
	s.want(403, http.MethodPost, "/v2/target/blobs/uploads/", nil)
}

// TestEcho has a registry that answers everything with what it was sent.
func TestEcho(t *testing.T) {
	t.Parallel()
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			say(401, "WWW-Authenticate", `Basic realm="x"`)(w, r)
			return
		}
		_, p, _ := r.BasicAuth()
		sent := r.Header.Get("Authorization")
		for _, name := range []string{"Etag", "Content-Range", "Docker-Content-Digest", "Set-Cookie", "WWW-Authenticate", "Retry-After", "X-Any"} {
			w.Header().Set(name, sent+p)
		}
		if strings.Contains(r.URL.Path, "manifests") {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"` + sent + " " + p + `","detail":"` + p + `"},{"code":"` + p + `"}]}`))
			return
		}
		w.Header().Set("Location", "https://elsewhere.example/?x="+p)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password)})
	if r := s.want(418, http.MethodGet, "/v2/target/manifests/1", nil); !strings.Contains(r.body, "[redacted]") {
		t.Error(r.body)
	}
	s.want(502, http.MethodGet, "/v2/target/blobs/"+someDigest, nil)
}

// TestTLS reaches registries whose certificates are known and unknown, and of
// plain HTTP.
func TestTLS(t *testing.T) {
	t.Parallel()
	secure := httptest.NewUnstartedServer(images())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(images())
	t.Cleanup(plain.Close)
	_, port, err := net.SplitHostPort(secure.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	nobody := x509.NewCertPool()
	ask := func(o proxy.Options) int {
		s := start(t, o)
		return s.ask(http.MethodGet, "/v2/target/manifests/1", nil).status
	}
	// Loopback: without verification, and https where plain HTTP isn't spoken.
	if got := ask(proxy.Options{Target: "127.0.0.1:" + port + "/x", Roots: nobody}); got != 404 {
		t.Errorf("loopback: %d", got)
	}
	if got := ask(proxy.Options{Target: "localhost:" + port + "/x", Roots: nobody}); got != 404 {
		t.Errorf("localhost: %d", got)
	}
	// Another name of this machine is no loopback host to go by.
	const elsewhere = "127.0.0.1.example.invalid"
	if got := ask(proxy.Options{Target: elsewhere + ":" + port + "/x", Roots: roots}); got != 502 {
		t.Errorf("a host that isn't there: %d", got)
	}
	for name, tt := range map[string]struct {
		host     string
		roots    *x509.CertPool
		insecure bool
		want     string
	}{
		"known":             {"example.com", roots, false, "https"},
		"unknown":           {"example.com", nobody, false, ""},
		"unknown, insecure": {"example.com", nobody, true, "https"},
		"another name":      {"example.org", roots, false, ""},
		"plain":             {"plain.example", roots, false, ""},
		"plain, insecure":   {"plain.example", roots, true, "http"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dial := secure.Listener.Addr().String()
			if strings.HasPrefix(tt.host, "plain") {
				dial = plain.Listener.Addr().String()
			}
			got, err := proxy.SchemeOf(t.Context(), proxy.Options{Roots: tt.roots, Insecure: tt.insecure}, tt.host, dial)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("scheme %q, want %q: %v", got, tt.want, err)
			}
		})
	}
}
