// Package logins finds the credentials for registries: in docker's config.json, in
// containers' auth.json, at credential helpers, and in texts of that form. It decrypts what
// was handed over encrypted.
//
// Errors hold nothing of a text but the names of its entries.
package logins

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/google/go-containerregistry/pkg/authn"
)

// Auths are credentials by what they are good for, the "auths" of docker's
// config.json: a host, its port when it has one, and with containers' auth.json
// any part of the path to a repository. It is an authn.Keychain that takes the
// most specific entry.
type Auths struct {
	origin  string
	entries map[string]authn.AuthConfig
}

// Parse reads {"auths":{…}}, or the inner map alone. origin is where the
// text comes from, for whoever tells it and for errors, which hold nothing of
// the text but names of entries.
func Parse(text []byte, origin string) (*Auths, error) {
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(text, &outer); err != nil {
		return nil, fmt.Errorf("%s: %w", origin, jsonError(err))
	}
	if inner, ok := outer["auths"]; ok {
		outer = nil
		if err := json.Unmarshal(inner, &outer); err != nil {
			return nil, fmt.Errorf("%s: auths: %w", origin, jsonError(err))
		}
	}
	a := &Auths{origin: origin, entries: make(map[string]authn.AuthConfig)}
	// "host" comes after "https://host/v1/", and wins.
	keys := slices.SortedFunc(maps.Keys(outer), func(a, b string) int {
		return cmp.Or(strings.Count(b, "://")-strings.Count(a, "://"), strings.Compare(a, b))
	})
	for _, key := range keys {
		var entry authn.AuthConfig
		if err := json.Unmarshal(outer[key], &entry); err != nil {
			return nil, fmt.Errorf("%s: entry %q: want an object whose auth is base64 of user:password", origin, words.Redact(key))
		}
		if entry != (authn.AuthConfig{}) { // docker leaves empty ones beside a helper
			a.entries[authKey(key)] = entry
		}
	}
	return a, nil
}

// jsonError says where text isn't what it should be, without quoting it.
func jsonError(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON (at byte %d)", syntax.Offset)
	}
	return errors.New("want a JSON object of registries")
}

// authKey is an entry's name as references write it: old entries are URLs, and
// Docker Hub has several names.
func authKey(key string) string {
	_, address, isURL := strings.Cut(key, "://")
	if isURL {
		key = address
	}
	host, path, _ := strings.Cut(strings.Trim(key, "/"), "/")
	if isURL && (path == "v1" || path == "v2") {
		path = ""
	}
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = reference.Hub
	}
	return strings.TrimSuffix(host+"/"+path, "/")
}

// Resolve implements authn.Keychain.
func (a *Auths) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for key := authKey(target.String()); key != ""; {
		if entry, ok := a.entries[key]; ok {
			return &credential{entry, a.origin}, nil
		}
		key = key[:max(strings.LastIndexByte(key, '/'), 0)]
	}
	return authn.Anonymous, nil
}

// credential is an authn.Authenticator that knows where it was found.
type credential struct {
	config authn.AuthConfig
	origin string
}

// Origin returns where the credential comes from.
func (c *credential) Origin() string { return c.origin }

// Authorization implements authn.Authenticator.
func (c *credential) Authorization() (*authn.AuthConfig, error) {
	config := c.config
	return &config, nil
}

// maxFile bounds a file of credentials, in bytes.
const maxFile = 4 << 20

// File is a keychain of docker's config.json, or containers' auth.json, at
// path: in that order its credHelpers, its auths and its credsStore. A file that
// isn't there holds nothing. Helpers are programs docker-credential-NAME in PATH.
func File(path string) authn.Keychain { return file(path) }

type file string

// Resolve implements authn.Keychain.
func (f file) Resolve(target authn.Resource) (authn.Authenticator, error) {
	return f.ResolveContext(context.Background(), target)
}

// ResolveContext implements authn.ContextKeychain.
func (f file) ResolveContext(ctx context.Context, target authn.Resource) (authn.Authenticator, error) {
	text, err := bounded.ReadFile(ctx, string(f), maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return authn.Anonymous, nil
	}
	if err != nil {
		return nil, err
	}
	var settings struct {
		Auths   json.RawMessage   `json:"auths"`
		Helpers map[string]string `json:"credHelpers"`
		Store   string            `json:"credsStore"`
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return authn.Anonymous, nil
	}
	if err := json.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("%s: %w", f, jsonError(err))
	}
	host, _, _ := strings.Cut(authKey(target.String()), "/")
	for key, helper := range settings.Helpers {
		if authKey(key) == host && helper != "" {
			if found, err := f.ask(helper, host); found != authn.Anonymous || err != nil {
				return found, err
			}
		}
	}
	if settings.Auths != nil {
		auths, err := Parse(settings.Auths, string(f))
		if err != nil {
			return nil, err
		}
		if found, err := auths.Resolve(target); found != authn.Anonymous || err != nil {
			return found, err
		}
	}
	if settings.Store == "" {
		return authn.Anonymous, nil
	}
	return f.ask(settings.Store, host)
}

// ask asks a credential helper for a host.
func (f file) ask(helper, host string) (authn.Authenticator, error) {
	program := "docker-credential-" + helper
	server := host
	if host == reference.Hub {
		server = authn.DefaultAuthKey
	}
	found, err := client.Get(client.NewShellProgramFunc(program), server)
	switch {
	case credentials.IsErrCredentialsNotFound(err):
		return authn.Anonymous, nil
	case err != nil:
		return nil, fmt.Errorf("%s, named in %s: %s; install or mend it, or take it out of that file", program, f, words.Redact(err.Error()))
	case found.Username == "" && found.Secret == "":
		return authn.Anonymous, nil
	}
	c := &credential{origin: program + ", named in " + string(f)}
	if found.Username == "<token>" { // of the credential helper protocol
		c.config.IdentityToken = found.Secret
	} else {
		c.config.Username, c.config.Password = found.Username, found.Secret
	}
	return c, nil
}
