// Package certs finds the certificates for registries: the authorities that a host's
// certificate is checked with, and the certificates that are shown to it.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
)

// Certificates are the authorities that one registry's certificate is checked with, and
// the certificates that are shown to it. The zero value has the authorities of all
// hosts and shows no certificate.
type Certificates struct {
	roots *x509.CertPool // nil: the authorities of all hosts
	own   []tls.Certificate
}

// Dirs are where the certificates of hosts are.
type Dirs struct {
	// Paths are directories with a directory for each host ("registry.example.com:5000"),
	// as docker's and podman's certs.d. The first that has one for a host counts.
	Paths []string
	// Roots are the authorities of all hosts; nil is the machine's.
	Roots *x509.CertPool
	// Own are shown to all hosts that ask for one.
	Own []tls.Certificate
}

// For reads the certificates of a host, as docker and podman do: every *.crt in its
// directory is trusted, every *.cert is shown to the registry with its *.key.
func (d *Dirs) For(ctx context.Context, host string) (Certificates, error) {
	found := Certificates{own: d.Own}
	for _, parent := range d.Paths {
		dir := filepath.Join(parent, host)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found, err
		}
		for _, e := range entries {
			if err := found.add(ctx, d.Roots, filepath.Join(dir, e.Name())); err != nil {
				return found, err
			}
		}
		return found, nil
	}
	return found, nil
}

func (h *Certificates) add(ctx context.Context, all *x509.CertPool, path string) error {
	switch filepath.Ext(path) {
	case ".crt":
		if h.roots == nil {
			var err error
			if h.roots, err = clonePool(all); err != nil {
				return err
			}
		}
		return AddCA(ctx, h.roots, path)
	case ".cert":
		pair, err := KeyPair(ctx, path, strings.TrimSuffix(path, ".cert")+".key")
		if err != nil {
			return fmt.Errorf("client certificate %s: %w", path, err)
		}
		h.own = append(slices.Clip(h.own), pair)
	}
	return nil
}

func clonePool(pool *x509.CertPool) (*x509.CertPool, error) {
	if pool != nil {
		return pool.Clone(), nil
	}
	return x509.SystemCertPool()
}

// maxCertificates bounds a file of certificates or a key, in bytes.
const maxCertificates = 16 << 20

// KeyPair reads a certificate and its key from files in PEM form.
func KeyPair(ctx context.Context, certificate, key string) (tls.Certificate, error) {
	c, err := bounded.ReadFile(ctx, certificate, maxCertificates)
	if err != nil {
		return tls.Certificate{}, err
	}
	k, err := bounded.ReadFile(ctx, key, maxCertificates)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(c, k)
}

// AddCA adds the certificate authorities in the PEM file at path to pool. A file
// without authorities is an error.
func AddCA(ctx context.Context, pool *x509.CertPool, path string) error {
	text, err := bounded.ReadFile(ctx, path, maxCertificates)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return nil
}

// Carrier returns the transport for requests to the host: base, or a copy of it with
// the certificates.
func (h *Certificates) Carrier(base http.RoundTripper) http.RoundTripper {
	t, ok := base.(*http.Transport)
	if !ok || h.roots == nil && len(h.own) == 0 {
		return base
	}
	t = t.Clone()
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if h.roots != nil {
		t.TLSClientConfig.RootCAs = h.roots
	}
	t.TLSClientConfig.Certificates = append(t.TLSClientConfig.Certificates, h.own...)
	t.TLSClientConfig.NextProtos = []string{"http/1.1"} // Clone has put h2 there
	return t
}
