package integration_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/bobbuild/bob/integration/harness"
)

// front serves a registry under other names.
func front(t *testing.T, r *harness.Registry) http.Handler {
	t.Helper()
	target, err := url.Parse("http://" + r.Host)
	check(t, err)
	return &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Host = p.In.Host
	}}
}

// forwarder is an HTTP proxy that knows where two names are, and nothing else.
type forwarder struct {
	secure, plain string // addresses of registry.test:443 and plain.test:80
	password      string // wanted of clients; "" = none
	tunnels       atomic.Int32
	requests      atomic.Int32
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("proxyuser:"+f.password))
	switch {
	case f.password != "" && r.Header.Get("Proxy-Authorization") != want:
		w.WriteHeader(http.StatusProxyAuthRequired)
	case r.Method == http.MethodConnect && r.Host == "registry.test:443":
		f.tunnels.Add(1)
		f.tunnel(w, r)
	case r.Method != http.MethodConnect && r.URL.Host == "plain.test":
		f.requests.Add(1)
		(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Host = f.plain }}).ServeHTTP(w, r)
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

func (f *forwarder) tunnel(w http.ResponseWriter, r *http.Request) {
	to, err := new(net.Dialer).DialContext(r.Context(), "tcp", f.secure)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	go func() {
		_, _ = io.Copy(to, buffered)
		_ = to.Close()
	}()
	_, _ = io.Copy(from, to)
}

// certificate makes a certificate for registry.test and clients, signed by itself,
// and its files in the workbench.
func (b *workbench) certificate() tls.Certificate {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(b.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"registry.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(b.t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	check(b.t, err)
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyPEM := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: secret}))
	const dir = "home/.config/containers/certs.d/registry.test/"
	b.write(map[string]string{
		"cert.pem": certPEM, "key.pem": keyPEM,
		dir + "ca.crt": certPEM, dir + "client.cert": certPEM, dir + "client.key": keyPEM,
	})
	pair, err := tls.X509KeyPair([]byte(certPEM), []byte(keyPEM))
	check(b.t, err)
	return pair
}

// TestProxyAndCertificates pulls from and pushes to a registry that only an HTTP
// proxy can reach, that nobody vouches for and that wants a certificate.
func TestProxyAndCertificates(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	pair := b.certificate()
	clients := x509.NewCertPool()
	clients.AddCert(pair.Leaf)
	secure := httptest.NewUnstartedServer(front(t, b.registry))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(front(t, b.registry))
	t.Cleanup(plain.Close)
	f := &forwarder{secure: secure.Listener.Addr().String(), plain: plain.Listener.Addr().String(), password: "proxy-passw0rd"}
	proxy := httptest.NewServer(f)
	t.Cleanup(proxy.Close)
	with := "http://proxyuser:proxy-passw0rd@" + proxy.Listener.Addr().String()

	path := strings.TrimPrefix(b.registry.Prefix, b.registry.Host)
	repository := strings.TrimPrefix(b.ref[:strings.LastIndexByte(b.ref, ':')], b.registry.Host)
	b.write(map[string]string{
		"context/Dockerfile": "ARG HOST\nFROM $HOST" + path + "/busybox\nRUN echo hi > /hi\n",
		"bare/":              "",
	})
	for name, tt := range map[string]struct {
		host  string
		home  string // "": with certs.d
		env   []string
		flags []string
		want  string // in the error; "": it works
	}{
		"directory": {host: "registry.test", env: []string{"HTTPS_PROXY=" + with}},
		"flags": {
			host: "registry.test", home: "bare", env: []string{"HTTPS_PROXY=" + with},
			flags: []string{"--registry-ca=cert.pem", "--registry-cert=cert.pem", "--registry-key=key.pem"},
		},
		"variables": {
			host: "registry.test", home: "bare",
			env: []string{"HTTPS_PROXY=" + with, "SSL_CERT_FILE=" + b.dir + "/cert.pem", "BOB_REGISTRY_CERT=cert.pem", "BOB_REGISTRY_KEY=key.pem"},
		},
		"plain": {host: "plain.test", env: []string{"HTTP_PROXY=" + with}, flags: []string{"--insecure"}},
		"no authority": {
			host: "registry.test", home: "bare", env: []string{"HTTPS_PROXY=" + with},
			want: "certificate not trusted: .*; add its CA to this machine's trust store, name it with --registry-ca, or use --insecure",
		},
		"no client certificate": {
			host: "registry.test", home: "bare", env: []string{"HTTPS_PROXY=" + with}, flags: []string{"--registry-ca=cert.pem"},
			want: "registry.test.*(certificate required.*--registry-cert|reset|broken pipe|closed)", // the network may lose the reason
		},
		"wrong password": {
			host: "registry.test", env: []string{"HTTPS_PROXY=" + strings.Replace(with, "proxy-passw0rd", "wrong-passw0rd", 1)},
			want: "the proxy 127.0.0.1:[0-9]+ answers 407 Proxy Authentication Required for registry.test; check HTTPS_PROXY",
		},
		"no proxy there":    {host: "registry.test", env: []string{"HTTPS_PROXY=http://u:proxy-passw0rd@127.0.0.1:9"}, want: "proxy.*connection refused .tried [0-9]+ times.; check these variables"},
		"not for this host": {host: "registry.test", env: []string{"HTTPS_PROXY=" + with, "NO_PROXY=registry.test"}, want: "registry.test"},
		"no such file":      {host: "registry.test", flags: []string{"--registry-ca=none.pem"}, want: "--registry-ca: .*none.pem"},
		"no certificate":    {host: "registry.test", flags: []string{"--registry-ca=key.pem"}, want: "key.pem holds no certificate"},
		"half a pair":       {host: "registry.test", flags: []string{"--registry-cert=cert.pem"}, want: "go together"},
	} {
		t.Run(name, func(t *testing.T) {
			before := f.tunnels.Load() + f.requests.Load()
			tag := strings.ReplaceAll(name, " ", "-")
			i := harness.Invocation{
				Dir: b.dir, Env: tt.env,
				Args: append([]string{"build", "--progress=plain", "--no-cache", "-t", tt.host + repository + ":" + tag, "--build-arg=HOST=" + tt.host, "context"}, tt.flags...),
			}
			if tt.home != "" {
				i.Home = b.dir + "/" + tt.home
			}
			result := b.run(i)
			if output := result.Stdout + result.Stderr; strings.Contains(output, "passw0rd") {
				t.Errorf("a password is shown:\n%s", output)
			}
			pushed := has(t, b.registry, b.registry.Host+repository+":"+tag)
			if tt.want != "" {
				if result.Code == 0 || !matches(tt.want, result.Stderr) || pushed {
					t.Errorf("exit code %d, pushed %t, want %q:\n%s", result.Code, pushed, tt.want, result.Stderr)
				}
				return
			}
			if result.Code != 0 || !pushed {
				t.Errorf("exit code %d, pushed %t:\n%s", result.Code, pushed, result.Stderr)
			}
			if f.tunnels.Load()+f.requests.Load() == before {
				t.Error("the proxy wasn't used")
			}
		})
	}
}

// TestBuildThroughSocket builds through a unix socket that stands for localhost:8080.
func TestBuildThroughSocket(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", b.dir+"/s")
	check(t, err)
	check(t, os.Chmod(b.dir+"/s", 0o777))
	srv := &httptest.Server{Listener: listener, Config: &http.Server{Handler: front(t, b.registry), ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(srv.Close)
	path := strings.TrimPrefix(b.registry.Prefix, b.registry.Host)
	b.write(map[string]string{"context/Dockerfile": "FROM localhost:8080" + path + "/busybox\nRUN echo hi > /hi\n"})
	ref := "127.0.0.1:8080" + strings.TrimPrefix(b.ref, b.registry.Host)
	if result := b.bob("build", "--proxy", "unix://"+b.dir+"/s", "-t", ref, "context"); result.Code != 0 {
		t.Fatal(result.Stderr)
	}
	if !has(t, b.registry, b.ref) {
		t.Error("nothing was pushed")
	}
	result := b.run(harness.Invocation{Env: []string{"BOB_PROXY=unix://" + b.dir + "/none"}, Args: []string{"build", "-t", ref, "context"}})
	if result.Code != 1 || !matches("localhost:8080|127.0.0.1:8080", result.Stderr) || !matches("is bob proxy running", result.Stderr) {
		t.Errorf("exit code %d:\n%s", result.Code, result.Stderr)
	}
	for _, bad := range []string{"/run/s", "unix://run/s", "http://127.0.0.1:1"} {
		if result := b.bob("build", "--proxy", bad, "context"); result.Code != 2 || !matches("want unix:///path", result.Stderr) {
			t.Errorf("%s: exit code %d:\n%s", bad, result.Code, result.Stderr)
		}
	}
}

// TestSealedCredentials pushes with credentials that a variable holds encrypted.
func TestSealedCredentials(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	guarded, err := lab.Guarded()
	check(t, err)
	key := []byte(rand.Text() + rand.Text())[:32]
	block, err := aes.NewCipher(key)
	check(t, err)
	gcm, err := cipher.NewGCM(block)
	check(t, err)
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce)
	sealed := base64.RawStdEncoding.EncodeToString(gcm.Seal(nonce, nonce, []byte(guarded.DockerConfig()), nil))
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN echo hi > /hi; ! env | grep -i BOB_\n"})
	ref := guarded.Prefix + "/sealed:1"
	for name, tt := range map[string]struct {
		key  string
		want string
		code int
	}{
		"right key": {string(key), "credentials for " + guarded.Host + ": from BOB_WSLAYER_AUTH", 0},
		"wrong key": {rand.Text() + rand.Text()[:6], "BOB_WSLAYER_AUTH, with the key in BOB_AUTH_KEY: it was encrypted with another key, or damaged", 2},
		"no key":    {"", "BOB_WSLAYER_AUTH: not JSON", 2},
	} {
		t.Run(name, func(t *testing.T) {
			result := b.run(harness.Invocation{
				Env:  []string{"BOB_WSLAYER_AUTH=" + sealed, "BOB_AUTH_KEY=" + tt.key},
				Args: []string{"build", "--verbose", "--progress=plain", "-t", ref, "context"},
			})
			if result.Code != tt.code || !strings.Contains(result.Stderr, tt.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", result.Code, tt.code, tt.want, result.Stderr)
			}
			for _, secret := range []string{harness.GuardedPassword, string(key), sealed, base64.StdEncoding.EncodeToString([]byte(harness.GuardedUser + ":" + harness.GuardedPassword))} {
				if strings.Contains(result.Stdout+result.Stderr, secret) {
					t.Errorf("a secret is shown:\n%s", result.Stderr)
				}
			}
		})
	}
	if found, err := guarded.Has(context.WithoutCancel(t.Context()), ref); err != nil || !found {
		t.Errorf("pushed: %t, %v", found, err)
	}
}

// TestCABundle has RUN, ADD and bob itself trust a certificate that nobody vouches for.
// The image and its key know nothing of that.
func TestCABundle(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	pair := b.certificate()
	secure := httptest.NewUnstartedServer(front(t, b.registry))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	proxy := httptest.NewServer(&forwarder{secure: secure.Listener.Addr().String()})
	t.Cleanup(proxy.Close)
	bob, err := lab.Bob()
	check(t, err)
	_, port, err := net.SplitHostPort(secure.Listener.Addr().String())
	check(t, err)
	path := strings.TrimPrefix(b.registry.Prefix, b.registry.Host)
	b.write(map[string]string{
		"context/Dockerfile": "FROM registry.test" + path + "/busybox\nADD https://registry.test/v2/ /answer\nARG CHECK\n" +
			// bob is the client that reads a variable of these; registry.test is no loopback host to it.
			"RUN --mount=from=program,target=/bob /bob/bob inspect registry.test:" + port + path + "/busybox && eval \"$CHECK\" && head -c 2 /answer > /read\n",
		"context/Own":     "FROM $REGISTRY/busybox\nENV SSL_CERT_FILE=/own\nRUN test \"$SSL_CERT_FILE\" = /own && test \"$PIP_CERT\" = /dev/bob/ca-bundle.pem\n",
		"home/.keep":      "",
		"program/.keep":   "",
		"bare/.config/.k": "",
	})
	check(t, os.Link(bob, b.dir+"/program/bob"))
	build := func(flags ...string) harness.Result {
		return b.run(harness.Invocation{
			Dir: b.dir, Home: b.dir + "/bare", Env: []string{"HTTPS_PROXY=" + proxy.URL},
			Args: append([]string{
				"build", "--progress=plain", "-t", "registry.test" + strings.TrimPrefix(b.ref, b.registry.Host), "--add-host=registry.test:127.0.0.1",
				"--build-context=program=program", "context",
			}, flags...),
		})
	}
	const look = `--build-arg=CHECK=grep -q bundle.pem "$APT_CONFIG" && ! echo x 2> /dev/null > "$CURL_CA_BUNDLE"`
	if result := build(look); result.Code == 0 || !matches("certificate not trusted", result.Stderr) {
		t.Errorf("without the authority: exit code %d\n%s", result.Code, result.Stderr)
	}
	if result := build(look, "--ca-bundle=cert.pem"); result.Code != 0 {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	if result := build(look, "--ca-bundle=cert.pem", "--network=none"); result.Code == 0 {
		t.Error("the command wasn't run again for another network")
	}
	ref, err := name.ParseReference(b.ref)
	check(t, err)
	image, err := remote.Image(ref)
	check(t, err)
	config, err := image.RawConfigFile()
	check(t, err)
	files := mutate.Extract(image)
	defer files.Close()
	tar, err := io.ReadAll(files)
	check(t, err)
	for _, trace := range []string{"SSL_CERT_FILE", "ca-bundle", "dev/bob"} {
		if bytes.Contains(config, []byte(trace)) || bytes.Contains(tar, []byte(trace)) {
			t.Errorf("the image holds %q:\n%s", trace, config)
		}
	}
	result := b.bob("build", "--ca-bundle=cert.pem", "-f", "context/Own", "context")
	if result.Code != 0 {
		t.Errorf("with a variable of the Dockerfile's own: exit code %d\n%s", result.Code, result.Stderr)
	}
	result = b.bob("build", "--progress=plain", "-f", "context/Own", "context")
	if result.Code != 0 || !matches("CACHED", result.Stderr) {
		t.Errorf("the key knows of the authorities: exit code %d\n%s", result.Code, result.Stderr)
	}
}
