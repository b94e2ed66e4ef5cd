package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/certs"
	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/logins"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/google/go-containerregistry/pkg/authn"
)

// registryConfig holds the flags that say how registries are reached.
type registryConfig struct {
	insecure, verbose            bool
	conf, ca, cert, key, proxied cli.Text
	bundle                       cli.Text // of bob build
	retryFor                     time.Duration

	options registry.Options // set by check
}

func (cfg *registryConfig) register(flags *flag.FlagSet) {
	flags.BoolVar(&cfg.insecure, "insecure", false, "allow plain HTTP and unverified TLS for any registry; loopback needs no leave")
	flags.BoolVar(&cfg.verbose, "verbose", false, "say which credential is used for which registry, and where it comes from")
	flags.Var(&cfg.conf, "registries-conf", "`file` of mirrors and settings of registries (default: containers' registries.conf)")
	flags.Var(&cfg.ca, "registry-ca", "`file` of certificate authorities, in PEM form, trusted beside the machine's")
	flags.Var(&cfg.cert, "registry-cert", "`file` of the certificate shown to registries, in PEM form")
	flags.Var(&cfg.key, "registry-key", "`file` of the key of --registry-cert")
	flags.Var(&cfg.proxied, "proxy", "`unix:///path` of the socket of bob proxy, which localhost:8080 then stands for")
}

// registerRetryFor registers the flag for retrying requests. A command without the flag
// doesn't retry.
func registerRetryFor(flags *flag.FlagSet, value *time.Duration) {
	flags.DurationVar(value, "retry-for", patience.DefaultLimit, "how `long` what the network fails at is tried again, from the failure on; 0 gives up at once (default 1m)")
}

// patient returns the policy that the value of --retry-for asks for.
func patient(retryFor time.Duration) (patience.Policy, error) {
	switch {
	case retryFor < 0:
		return patience.Policy{}, cli.Wrong("retry-for", retryFor, "want a time of 0 or more, as 90s")
	case retryFor == 0:
		return patience.Policy{Limit: -1}, nil
	}
	return patience.Policy{Limit: retryFor}, nil
}

// check checks the flags and reads what they name. Its error joins everything that is
// wrong with them.
func (cfg *registryConfig) check(ctx context.Context) (err error) {
	defer func() { err = interrupted(ctx, err) }()
	o := registry.Options{Insecure: cfg.insecure, UserAgent: "bob/" + version}
	var wrong []error
	o.Patience, err = patient(cfg.retryFor)
	wrong = append(wrong, err)
	if o.Conf, err = conf.Read(ctx, cfg.confFiles()...); err != nil {
		wrong = append(wrong, cli.About("registries-conf", "", cli.Errorf("%v", err)))
	}
	o.Roots, err = addCA(ctx, nil, "registry-ca", string(cfg.ca))
	wrong = append(wrong, err)
	o.Roots, err = addCA(ctx, o.Roots, "ca-bundle", string(cfg.bundle))
	wrong = append(wrong, err)
	switch {
	case cfg.cert != "" && cfg.key != "":
		pair, err := certs.KeyPair(ctx, string(cfg.cert), string(cfg.key))
		if err != nil {
			wrong = append(wrong, cli.About("registry-cert", "", cli.Errorf("--registry-cert: %v", err)))
		}
		o.Certificates = []tls.Certificate{pair}
	case cfg.cert != "":
		wrong = append(wrong, cli.About("registry-cert", "", cli.Errorf("--registry-cert and --registry-key go together")))
	case cfg.key != "":
		wrong = append(wrong, cli.About("registry-key", "", cli.Errorf("--registry-cert and --registry-key go together")))
	}
	o.CertDirs = append(inConfig("containers/certs.d"), "/etc/containers/certs.d", "/etc/docker/certs.d")
	if cfg.proxied != "" {
		path, ok := strings.CutPrefix(string(cfg.proxied), "unix://")
		if !ok || !filepath.IsAbs(path) {
			wrong = append(wrong, cli.Wrong("proxy", cfg.proxied, "want unix:///path"))
		}
		o.Socket = path
	}
	o.Keychain, o.PushKeychain, err = keychains()
	cfg.options = o
	return errors.Join(append(wrong, err)...)
}

// apply is check for a build. It gives the authorities of --ca-bundle to RUN too.
func (cfg *registryConfig) apply(ctx context.Context, o *options) error {
	return errors.Join(cfg.check(ctx), cfg.readBundle(ctx, &o.build))
}

// readBundle reads the authorities that RUN trusts.
func (cfg *registryConfig) readBundle(ctx context.Context, o *executor.Options) (err error) {
	if file := cfg.bundle; file != "" {
		if o.CABundle, err = bounded.ReadFile(ctx, string(file), command.MaxBundleSize); err != nil {
			return cli.About("ca-bundle", "", cli.Errorf("--ca-bundle: %v", err))
		}
	}
	return nil
}

// addCA returns roots with the certificate authorities in the file that flag names
// added. Without a file it returns roots. nil stands for the machine's authorities.
func addCA(ctx context.Context, roots *x509.CertPool, flag, file string) (*x509.CertPool, error) {
	if file == "" {
		return roots, nil
	}
	if roots == nil {
		var err error
		if roots, err = x509.SystemCertPool(); err != nil {
			return nil, err
		}
	}
	if err := certs.AddCA(ctx, roots, file); err != nil {
		return nil, cli.About(flag, "", cli.Errorf("--%s: %v", flag, err))
	}
	return roots, nil
}

// confFiles returns the registries.conf files to read; a later file takes precedence. A
// file that the user names is the only one. podman's own files have directories of
// further files beside them.
func (cfg *registryConfig) confFiles() []string {
	if cfg.conf != "" {
		return []string{string(cfg.conf)}
	}
	if named := os.Getenv("CONTAINERS_REGISTRIES_CONF"); named != "" {
		return []string{named}
	}
	const system = "/etc/containers/registries.conf"
	var files []string
	own := inConfig("containers/registries.conf")
	for _, file := range append(own, system) {
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			files = append(files, file)
			break
		}
	}
	parts := append([]string{system}, own...)
	if len(files) > 0 && files[0] != system {
		parts = own
	}
	for _, part := range parts {
		more, err := filepath.Glob(part + ".d/*.conf") // sorted
		if err == nil {
			files = append(files, more...)
		}
	}
	return files
}

// inConfig returns the path in the user's own configuration, nothing if the user has no
// directory for it.
func inConfig(path string) []string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil
	}
	return []string{filepath.Join(dir, path)}
}

// Variables with credentials: docker's auths as JSON, encrypted if there is a key.
const (
	baseAuthVariable   = "BOB_BASELAYER_AUTH"
	targetAuthVariable = "BOB_WSLAYER_AUTH"
	keyVariable        = "BOB_AUTH_KEY"
)

// keychains returns where to look for credentials for pulls and pushes: in the
// variables, the operation's own first, then in docker's files, then in podman's.
func keychains() (pull, push authn.Keychain, err error) {
	base, err := authVariable(baseAuthVariable)
	if err != nil {
		return nil, nil, err
	}
	target, err := authVariable(targetAuthVariable)
	if err != nil {
		return nil, nil, err
	}
	var files []authn.Keychain
	for _, file := range authFiles() {
		files = append(files, logins.File(file))
	}
	stored := authn.NewMultiKeychain(files...)
	return authn.NewMultiKeychain(base, target, stored), authn.NewMultiKeychain(target, base, stored), nil
}

// authVariable reads the credentials in a variable, which may be missing.
func authVariable(variable string) (*logins.Auths, error) {
	text := []byte(os.Getenv(variable))
	if len(text) == 0 {
		text = []byte("{}")
	} else if key := os.Getenv(keyVariable); key != "" {
		var err error
		if text, err = logins.Unseal([]byte(key), string(text)); err != nil {
			return nil, cli.Errorf("%s, with the key in %s: %v", variable, keyVariable, err)
		}
	}
	auths, err := logins.Parse(text, variable)
	if err != nil {
		return nil, cli.Errorf("%v", err)
	}
	return auths, nil
}

// authFiles returns docker's and podman's files of credentials, those that count
// more first.
func authFiles() []string {
	var files []string
	if dir := dockerDir(); dir != "" {
		files = append(files, filepath.Join(dir, "config.json"))
	}
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		return append(files, file)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	return append(files, inConfig("containers/auth.json")...)
}

// dockerDir returns the directory of docker's configuration, "" if there is no place
// for one.
func dockerDir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// client returns the client that the flags ask for, which shows remarks by notice.
func (cfg *registryConfig) client(notice func(string)) *registry.Client {
	o := cfg.options
	for _, ignored := range o.Conf.Ignored {
		notice(ignored)
	}
	o.Notice = notice
	if cfg.verbose {
		o.Credential = func(host, origin string) {
			if origin == "" {
				notice("credentials for " + host + ": none are known")
				return
			}
			notice("credentials for " + host + ": from " + origin)
		}
	}
	return registry.New(o)
}

// maxConfig bounds a file of credentials and settings, in bytes.
const maxConfig = 4 << 20
