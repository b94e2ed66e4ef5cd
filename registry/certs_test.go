package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate for names, signed by a, or an authority when a is nil.
func (a *authority) issue(t *testing.T, names ...string) (*authority, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test " + serial.String()}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent := &authority{cert: template, key: key}
	if a == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		parent = a
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (a *authority) pair() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{a.cert.Raw}, PrivateKey: a.key, Leaf: a.cert}
}

func (a *authority) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// TestCertificates reaches a registry whose authority nobody knows and that wants a
// certificate of its clients, with what flags and directories give.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, caPEM := (*authority)(nil).issue(t)
	otherCA, otherPEM := (*authority)(nil).issue(t)
	server, _ := ca.issue(t, "registry.test", "storage.test")
	mine, minePEM := ca.issue(t)
	stranger, strangerPEM := otherCA.issue(t)
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)

	var shownElsewhere bool
	inner := newInner(t)
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 2000)
	blob := "/blobs/" + f.Descs[0].Digest.String()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host == "storage.test":
			shownElsewhere = shownElsewhere || len(r.TLS.PeerCertificates) > 0
			_, _ = w.Write(f.Layers[0])
		case len(r.TLS.PeerCertificates) == 0:
			registrytest.Say(403, "DENIED")(w, r)
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, blob):
			http.Redirect(w, r, "https://storage.test/x", http.StatusTemporaryRedirect)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{server.pair()}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	srv.StartTLS()
	t.Cleanup(srv.Close)

	for name, tt := range map[string]struct {
		roots, shown any               // *authority
		files        map[string][]byte // in the directory of registry.test
		want         string            // "": it works
	}{
		"nothing":              {nil, nil, nil, "certificate not trusted"},
		"other authority":      {otherCA, nil, nil, "certificate not trusted"},
		"authority":            {ca, nil, nil, "access denied"},
		"both by flags":        {ca, mine, nil, ""},
		"stranger":             {ca, stranger, nil, "registry.test"},
		"directory":            {nil, nil, map[string][]byte{"ca.crt": caPEM, "client.cert": minePEM, "client.key": mine.keyPEM(t), "README": nil}, ""},
		"several in directory": {nil, nil, map[string][]byte{"a.crt": otherPEM, "b.crt": caPEM, "x.cert": strangerPEM, "x.key": stranger.keyPEM(t), "y.cert": minePEM, "y.key": mine.keyPEM(t)}, ""},
		"flag and directory":   {otherCA, mine, map[string][]byte{"ca.crt": caPEM}, ""},
		"no key":               {ca, nil, map[string][]byte{"client.cert": minePEM}, "client.key"},
		"another key":          {ca, nil, map[string][]byte{"client.cert": minePEM, "client.key": server.keyPEM(t)}, "client.cert"},
		"no certificate":       {nil, nil, map[string][]byte{"ca.crt": []byte("hello")}, "ca.crt holds no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.files != nil {
				if err := os.Mkdir(filepath.Join(dir, "registry.test"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for file, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, "registry.test", file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := registrytest.NewClient(t, func(o *registry.Options) {
				o.Transport = dialTo(srv)
				o.CertDirs = []string{filepath.Join(dir, "none"), dir}
				if roots, ok := tt.roots.(*authority); ok {
					o.Roots = x509.NewCertPool()
					o.Roots.AddCert(roots.cert)
				}
				if shown, ok := tt.shown.(*authority); ok {
					o.Certificates = []tls.Certificate{shown.pair()}
				}
			})
			if tt.want != "" {
				_, err := c.Push(t.Context(), "registry.test/app:1")
				registrytest.CheckError(t, err, "registry.test", nil, "registry.test/app", tt.want)
				return
			}
			f.Push(t.Context(), t, c, "registry.test/app:1")
			if tt.roots == ca { // the storage's certificate is trusted too
				f.Check(t.Context(), t, c, "registry.test/app:1")
			}
		})
	}
	if shownElsewhere {
		t.Error("another host got the client's certificate")
	}
}

// TestSocket checks that requests to port 8080 of this machine, and no others,
// travel through a socket.
func TestSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	m := &meter{inner: newInner(t)}
	srv := &httptest.Server{Listener: listener, Config: &http.Server{Handler: m, ReadHeaderTimeout: time.Minute}}
	srv.Start()
	t.Cleanup(srv.Close)
	elsewhere := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Socket = socket })
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 9<<20)
	f.Push(t.Context(), t, c, "localhost:8080/base:1")
	f.Check(t.Context(), t, c, "127.0.0.1:8080/base:1")
	n := len(m.seen)
	f.Push(t.Context(), t, c, elsewhere+"/base:1")
	if len(m.seen) != n {
		t.Errorf("other hosts went through the socket: %q", m.seen[n:])
	}
	c = registrytest.NewClient(t, func(o *registry.Options) { o.Socket = socket + "none" })
	_, err = c.Push(t.Context(), "localhost:8080/base:1")
	registrytest.CheckError(t, err, "localhost:8080", nil, socket+"none", "is bob proxy running")
}
