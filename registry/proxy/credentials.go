package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/containers/storage/pkg/regexp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Credentials are logins by registry host, or by host and the beginning of a
// repository's path. The zero value holds no login.
type Credentials struct {
	logins map[string]authn.AuthConfig // by key as normalKey makes it
}

// ParseDockerConfig reads the credentials in a docker config.json, which Kubernetes
// calls a .dockerconfigjson: {"auths": {HOST: LOGIN}}. "" holds no login. Errors repeat
// only the hosts of the text.
func ParseDockerConfig(text string) (Credentials, error) {
	if strings.TrimSpace(text) == "" {
		return Credentials{}, nil
	}
	var config struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return Credentials{}, jsonError(err, `{"auths": {"HOST": {"auth": "…"}}}`)
	}
	return parseLogins(config.Auths)
}

// ParseHosts reads credentials in a bare object: {HOST: LOGIN}. "" holds no login.
// Errors repeat only the hosts of the text.
func ParseHosts(text string) (Credentials, error) {
	if strings.TrimSpace(text) == "" {
		return Credentials{}, nil
	}
	var hosts map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &hosts); err != nil {
		return Credentials{}, jsonError(err, `{"HOST": {"auth": "…"}}`)
	}
	return parseLogins(hosts)
}

// jsonError says where JSON is wrong without repeating any of it.
func jsonError(err error, want string) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON from byte %d on; want %s", syntax.Offset, want)
	}
	return fmt.Errorf("not the JSON that is wanted: %s", want)
}

func parseLogins(hosts map[string]json.RawMessage) (Credentials, error) {
	c := Credentials{logins: make(map[string]authn.AuthConfig)}
	// Where two keys mean the same host, the first in order counts.
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		var login authn.AuthConfig
		if err := json.Unmarshal(hosts[host], &login); err != nil {
			return Credentials{}, fmt.Errorf(
				"login of %q: want an object with auth (base64 of user:password), username and password, identitytoken or registrytoken", host)
		}
		if login.Username == tokenUser && login.IdentityToken == "" {
			login.IdentityToken = login.Password
		}
		key := normalKey(host)
		if _, known := c.logins[key]; !known {
			c.logins[key] = login
		}
	}
	return c, nil
}

// tokenUser is the user name whose password is an identity token (docker's credential
// helpers).
const tokenUser = "<token>"

// normalKey makes host[/path] of a key in a config file: with a scheme, with the API's
// version, with the port of https, or by one of Docker Hub's names.
func normalKey(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimRight(key, "/")
	for _, version := range []string{"/v1", "/v2"} {
		key = strings.TrimSuffix(key, version)
	}
	host, path, hasPath := strings.Cut(key, "/")
	host = normalHost(host)
	if hasPath {
		return host + "/" + path
	}
	return host
}

func normalHost(host string) string {
	host = strings.ToLower(host)
	if h, port, err := net.SplitHostPort(host); err == nil && port == "443" {
		host = h
	}
	switch host {
	case "docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return name.DefaultRegistry
	}
	return host
}

// ecrDummyHost stands for every registry of ECR: its hosts hold the account and the
// region, and one login is good for all of them.
const ecrDummyHost = "000000000000.dkr.ecr.dummy-host-zone.amazonaws.com"

var ecrHost = regexp.Delayed(`^[0-9]{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`)

// find returns the login for a repository; the most specific key wins. ok is false if
// there is no login.
func (c Credentials) find(repo name.Repository) (login authn.AuthConfig, ok bool) {
	host := normalHost(repo.RegistryStr())
	hosts := []string{host}
	if ecrHost.MatchString(host) {
		hosts = append(hosts, ecrDummyHost)
	}
	for _, host := range hosts {
		for key := host + "/" + repo.RepositoryStr(); ; key = key[:strings.LastIndexByte(key, '/')] {
			if login, ok := c.logins[key]; ok {
				return login, true
			}
			if key == host {
				break
			}
		}
	}
	return authn.AuthConfig{}, false
}

// names reports whether a key is about host, or about repositories at host.
func (c Credentials) names(host string) bool {
	host = normalHost(host)
	for key := range c.logins {
		if keyHost, _, _ := strings.Cut(key, "/"); keyHost == host {
			return true
		}
	}
	return false
}
