package certs_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/certs"
	"github.com/bobbuild/bob/snapshot/bounded"
)

func TestAddCA(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	ca := srv.Certificate() // signed by itself
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, caPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	if err := certs.AddCA(t.Context(), pool, path); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Verify(x509.VerifyOptions{DNSName: "example.com", Roots: pool}); err != nil {
		t.Error(err)
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	system.AddCert(ca)
	if !pool.Equal(system) {
		t.Error("the machine's authorities aren't trusted any more")
	}
	if err := certs.AddCA(t.Context(), pool, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file is no error")
	}
}

// A file of certificates may be anything that is named, but not without end.
func TestCertificatesAreBounded(t *testing.T) {
	t.Parallel()
	endless := filepath.Join(t.TempDir(), "x.crt")
	if err := os.Symlink("/dev/zero", endless); err != nil {
		t.Fatal(err)
	}
	_, errPair := certs.KeyPair(t.Context(), endless, endless)
	for what, err := range map[string]error{"key pair": errPair, "authorities": certs.AddCA(t.Context(), x509.NewCertPool(), endless)} {
		if !errors.As(err, new(*bounded.LimitError)) || !strings.Contains(err.Error(), endless) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
