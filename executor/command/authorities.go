package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/executor/account"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// Where RUN finds the authorities of [Options.CABundle], and a configuration of apt,
// which reads no variable for them. Nothing below /dev becomes part of an image.
const (
	caFile  = "/dev/bob/ca-bundle.pem"
	aptFile = "/dev/bob/apt.conf"
)

// caVariables name a file of authorities, each to other programs: OpenSSL and Go, curl,
// Python's requests, pip, git, cargo, AWS's and Node.
var caVariables = []string{
	"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO",
	"AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
}

// systemBundles are where distributions keep all authorities in one file.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older ones of these
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/etc/ssl/cert.pem",                                 // OpenBSD's libraries
}

// trust makes p trust the authorities of [Options.CABundle] beside the authorities of
// its image, or of this machine if the image has no bundle. Variables that the
// Dockerfile sets stay.
func (c *Commands) trust(ctx context.Context, p *sandbox.Process) error {
	if len(c.CABundle) == 0 {
		return nil
	}
	bundle, err := systemBundle(ctx, p.Root)
	if err == nil && bundle == nil {
		bundle, err = systemBundle(ctx, "/")
	}
	if err != nil {
		return err
	}
	bundle = append(append(bundle, '\n'), c.CABundle...)
	for target, content := range map[string][]byte{
		caFile:  bundle,
		aptFile: []byte(`Acquire::https::CAInfo "` + caFile + "\";\n"),
	} {
		p.Mounts = append(p.Mounts, sandbox.Mount{Kind: sandbox.Memory, Target: target, File: sandbox.File{Content: content, Mode: 0o444}})
	}
	p.Env = slices.Clip(p.Env)
	set := func(name, value string) {
		if !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }) {
			p.Env = append(p.Env, name+"="+value)
		}
	}
	for _, name := range caVariables {
		set(name, caFile)
	}
	set("APT_CONFIG", aptFile)
	return nil
}

// MaxBundleSize is how many bytes a file of authorities may have.
const MaxBundleSize = 16 << 20

// systemBundle reads the authorities of the system below root, nil if it has none that
// can be read. A file of more than [MaxBundleSize] is an error: nobody would know which
// authorities a part of it lacks.
func systemBundle(ctx context.Context, root string) ([]byte, error) {
	for _, name := range systemBundles {
		f, err := account.OpenRegular(root, name)
		if err != nil {
			continue
		}
		data, err := bounded.ReadAll(ctx, f, MaxBundleSize)
		_ = f.Close() // it was only read
		if _, tooLarge := errors.AsType[*bounded.LimitError](err); tooLarge || ctx.Err() != nil {
			return nil, fmt.Errorf("read the authorities in %s: %w", filepath.Join(root, name), err)
		}
		if err == nil && bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
			return data, nil
		}
	}
	return nil, nil
}
