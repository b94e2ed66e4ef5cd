package fetch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// checkRemote refuses what would read this machine's files or start a program.
func checkRemote(remote string) error {
	ep, err := transport.NewEndpoint(remote)
	if err != nil {
		return fmt.Errorf("remote: %w", bare(err))
	}
	switch ep.Protocol {
	case "http", "https", "ssh", "git":
	default:
		return fmt.Errorf("protocol %q is not allowed for a git repository: want https, http, ssh or git", ep.Protocol)
	}
	if ep.Host == "" || strings.HasPrefix(ep.Host, "-") {
		return errors.New("the address has no valid host")
	}
	return nil
}

// auth returns how to authenticate to remote, and its address without user and
// password where these went into that. main is the remote that the secrets are
// for: a submodule elsewhere gets none, as from git's scoped http.*.extraheader.
func (c *Client) auth(ctx context.Context, main, remote string) (transport.AuthMethod, string, error) {
	if err := checkRemote(remote); err != nil {
		return nil, "", err
	}
	ep, err := transport.NewEndpoint(remote)
	if err != nil {
		return nil, "", err
	}
	switch ep.Protocol {
	case "ssh":
		method, err := c.sshAuth(ctx, ep)
		return method, remote, err
	case "http", "https":
		u, err := url.Parse(remote)
		if err != nil {
			return nil, "", err
		}
		value := c.secretHeader(ctx, main, u)
		if user := u.User; user != nil && value == "" {
			password, _ := user.Password()
			value = basic(user.Username(), password)
		}
		u.User = nil
		if value == "" {
			return nil, u.String(), nil
		}
		return &headerAuth{scheme: u.Scheme, host: u.Host, value: value}, u.String(), nil
	}
	return nil, remote, nil
}

// secretHeader returns the Authorization that the secrets give for u, "" if none.
func (c *Client) secretHeader(ctx context.Context, main string, u *url.URL) string {
	if !strings.HasPrefix(withoutUser(u), tokenScope(main)) {
		return ""
	}
	for _, suffix := range []string{"." + u.Host, ""} {
		if h, ok := c.o.Secret(ctx, "GIT_AUTH_HEADER"+suffix); ok {
			return strings.TrimSpace(string(h))
		}
		if t, ok := c.o.Secret(ctx, "GIT_AUTH_TOKEN"+suffix); ok {
			return basic("x-access-token", strings.TrimSpace(string(t)))
		}
	}
	return ""
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func withoutUser(u *url.URL) string {
	n := *u
	n.User = nil
	return n.String()
}

// tokenScope is what addresses begin with that get the secrets given for remote:
// itself, and on GitHub all of it, where repositories of one owner are usually
// readable by one token.
func tokenScope(remote string) string {
	remote = Redact(remote)
	for _, prefix := range []string{"https://github.com/", "https://www.github.com/"} {
		if strings.HasPrefix(remote, prefix) {
			return prefix
		}
	}
	return remote
}

// headerAuth sends an Authorization header to one host: a redirect to another
// doesn't take it along.
type headerAuth struct{ scheme, host, value string }

// Name implements transport.AuthMethod.
func (*headerAuth) Name() string { return "http-header" }

// String implements transport.AuthMethod.
func (*headerAuth) String() string { return "http-header" }

// SetAuth is what go-git's HTTP transport asks for.
func (a *headerAuth) SetAuth(r *http.Request) {
	if r.URL.Scheme == a.scheme && r.URL.Host == a.host {
		r.Header.Set("Authorization", a.value)
	}
}

// sshAuth authenticates by the keys of the agent.
func (c *Client) sshAuth(ctx context.Context, ep *transport.Endpoint) (transport.AuthMethod, error) {
	if c.o.Agent == nil {
		return nil, errors.New("it is reached by SSH, which takes an agent with a key: give bob build --ssh default")
	}
	var files []string
	for _, name := range c.o.KnownHosts {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			files = append(files, name)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the key of SSH host %s isn't known: add it with ssh-keyscan %s >>~/.ssh/known_hosts", ep.Host, ep.Host)
	}
	known, err := gitssh.NewKnownHostsCallback(files...)
	if err != nil {
		return nil, fmt.Errorf("read known_hosts: %w", err)
	}
	user := ep.User
	if user == "" {
		user = gitssh.DefaultUsername
	}
	return &gitssh.PublicKeysCallback{
		User: user,
		Callback: func() ([]ssh.Signer, error) {
			conn, err := c.o.Agent(ctx)
			if err != nil {
				return nil, fmt.Errorf("SSH agent: %w", err)
			}
			context.AfterFunc(ctx, func() { _ = conn.Close() }) // the signers use it until then
			return agent.NewClient(conn).Signers()
		},
		HostKeyCallbackHelper: gitssh.HostKeyCallbackHelper{HostKeyCallback: known},
	}, nil
}

// secretsOf returns what of the remote must not be shown.
func secretsOf(remote string) []string {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil {
		return nil
	}
	var out []string
	if password, ok := u.User.Password(); ok && password != "" {
		out = append(out, u.User.String(), password)
	} else if name := u.User.Username(); name != "" && u.Scheme != "ssh" {
		out = append(out, name)
	}
	return out
}
