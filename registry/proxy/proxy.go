package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

const (
	// Bounds on what a client can make the proxy hold at the same time.
	maxRequests  = 32
	maxManifests = 4
	maxUploads   = 4096
	maxSessions  = 1024
)

// Proxy is the handler. It is safe for concurrent use.
type Proxy struct {
	aliases   map[string]*repository
	extra     Credentials
	hosts     *hosts
	sessions  *ledger[*session]
	uploads   *ledger[upload]
	requests  *semaphore.Weighted
	manifests *semaphore.Weighted
	pushes    *pushes
	paces     paces
	log       *slog.Logger
}

// An upload is an upload that the registry has begun.
type upload struct {
	alias string
	url   *url.URL // where it goes on; may be on any host
}

// New returns a proxy. It makes no request yet.
func New(o Options) (*Proxy, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{
		aliases:   make(map[string]*repository),
		extra:     o.AdditionalAuth,
		hosts:     newHosts(&o, http.ProxyFromEnvironment),
		sessions:  newLedger[*session](maxSessions),
		uploads:   newLedger[upload](maxUploads),
		requests:  semaphore.NewWeighted(maxRequests),
		manifests: semaphore.NewWeighted(maxManifests),
		pushes:    newPushes(),
		paces:     paces{window: paceWindow, manifest: manifestTime, least: paceLeast},
		log:       o.Log,
	}
	for _, one := range []struct{ alias, text string }{{"base", o.Base}, {"target", o.Target}} {
		if one.text == "" {
			continue
		}
		alias := one.alias
		ref, err := reference.Parse(one.text)
		if err != nil {
			return nil, fmt.Errorf("%s reference: %w", alias, err)
		}
		repo := &repository{Repository: ref.Context(), alias: alias, ref: ref, seen: newLedger[struct{}](maxSeen)}
		var known bool
		if repo.login, known = o.Auth.find(repo.Repository); !known {
			repo.login, _ = o.AdditionalAuth.find(repo.Repository)
		}
		p.aliases[alias] = repo
	}
	return p, nil
}

// repository returns the repository of t, nil if it is unknown.
func (p *Proxy) repository(t *target) *repository {
	if t.mirror == nil {
		return p.aliases[t.repo]
	}
	repo := &repository{Repository: t.mirror.Repo(t.repo), guarded: !p.extra.names(t.mirror.RegistryStr())}
	repo.login, _ = p.extra.find(repo.Repository)
	return repo
}

// session returns the right to do actions in repo and, for a mount, to pull from
// another repository of the same host.
func (p *Proxy) session(ctx context.Context, repo *repository, actions string, from *repository) (*session, error) {
	up, err := p.hosts.upstream(ctx, repo.Registry, repo.guarded)
	if err != nil {
		return nil, err
	}
	scopes := []string{repo.Scope(actions)}
	if from != nil {
		scopes = append(scopes, from.Scope(transport.PullScope))
	}
	key := strings.Join(append([]string{repo.alias, repo.Name()}, scopes...), " ")
	return p.sessions.getOr(key, func() *session { return newSession(up, repo, scopes, p.paces) }), nil
}

// Drain waits until no push is running: every push has sent its manifest, or there was
// no request for the time patience. From now on no new push begins; all other requests
// are served as before. Requests that run when Drain returns are left to
// [http.Server.Shutdown]. The error is ctx's.
func (p *Proxy) Drain(ctx context.Context, patience time.Duration) error {
	return p.pushes.drain(ctx, patience)
}
