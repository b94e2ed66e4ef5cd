package proxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

const (
	userAgent = "bob-proxy"

	// What a client can make the proxy hold at the same time.
	maxRequests  = 32
	maxManifests = 4
	maxUploads   = 4096
	maxSeen      = 1 << 16
)

// Options say whom a [Proxy] works for.
type Options struct {
	// Base and Target are the references behind the aliases "base" and
	// "target": [host/]repository[:tag][@digest], a digest winning over a tag
	// beside it, without either ":latest". "" leaves an alias unknown.
	Base, Target string
	// Auth holds the logins for Base and Target.
	Auth Credentials
	// AdditionalAuth holds the logins for mirror requests, and those for
	// Base and Target that Auth lacks.
	AdditionalAuth Credentials
	// Insecure accepts any certificate, and plain HTTP from registries that
	// don't answer to https. Loopback hosts are always treated so.
	Insecure bool
	// Roots are the certificate authorities that are trusted; nil is the
	// machine's.
	Roots *x509.CertPool
	// Patience says for how long a registry that can't be reached is tried again, as
	// far as a request can be repeated. Hosts of mirror requests get none.
	Patience patience.Policy
	// Log gets a record of each request, without credentials or queries.
	// nil discards them.
	Log *slog.Logger
}

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

// A repository is what an alias or a mirror request stands for.
type repository struct {
	name.Repository
	alias   string            // "" of mirrors
	ref     name.Reference    // what a tag becomes; nil of mirrors
	seen    *ledger[struct{}] // digests of manifests; nil of mirrors
	login   authn.AuthConfig  // zero: none is known
	guarded bool              // see newCarriers
}

// New returns a proxy. It reaches nothing yet.
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
		ref, err := parseReference(one.text)
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

func parseReference(text string) (name.Reference, error) {
	if strings.Contains(text, "://") {
		return nil, errors.New("write it without a scheme, as host/repository:tag")
	}
	if strings.Contains(text, "@") {
		return name.NewDigest(text)
	}
	return name.NewTag(text)
}

// repository returns what t is about, nil if that is nothing known.
func (p *Proxy) repository(t *target) *repository {
	if t.mirror == nil {
		return p.aliases[t.repo]
	}
	repo := &repository{Repository: t.mirror.Repo(t.repo), guarded: !p.extra.names(t.mirror.RegistryStr())}
	repo.login, _ = p.extra.find(repo.Repository)
	return repo
}

// identifier returns the tag or digest that a request for a manifest is about:
// the client's if it is a digest that was seen, else that of the reference.
func (r *repository) identifier(t *target) (string, error) {
	if r.ref == nil {
		return t.ref, nil
	}
	if t.digest == "" || t.ref == r.ref.Identifier() {
		return r.ref.Identifier(), nil
	}
	if _, seen := r.seen.get(t.ref); !seen {
		return "", &refusal{
			status: http.StatusNotFound, code: "MANIFEST_UNKNOWN",
			message: "the proxy hasn't seen this digest in " + r.alias + "; ask for the tag first",
		}
	}
	return t.ref, nil
}

// see notes digests of manifests that the client may ask for.
func (r *repository) see(digests ...digest.Digest) {
	if r.seen == nil {
		return
	}
	for _, d := range digests {
		if d.Validate() == nil {
			r.seen.put(d.String(), struct{}{})
		}
	}
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	rec := &recorder{ResponseWriter: w}
	t := parseTarget(r)
	var err error
	defer func() { p.record(r, t, rec, err, time.Since(begin)) }()
	if err = p.serve(rec, r, t); err != nil && gaveUp(r) {
		err = errSlow
	}
	if err != nil && rec.status == 0 {
		refuse(rec, err)
	}
	if err != nil && rec.broken {
		// Only so does the client see that something is missing.
		panic(http.ErrAbortHandler)
	}
}

var errNothing = &refusal{status: http.StatusNotFound, code: "UNSUPPORTED", message: "this proxy passes on what pushing and pulling base and target takes, and nothing else"}

func (p *Proxy) serve(w *recorder, r *http.Request, t *target) error {
	switch {
	case t == nil:
		return errNothing
	case t.kind == kindHealth:
		_, err := io.WriteString(w, "ok\n")
		return err
	case t.kind == kindAPI:
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("Content-Type", "application/json")
		_, err := io.WriteString(w, "{}")
		return err
	}
	repo := p.repository(t)
	if repo == nil {
		return &refusal{status: http.StatusNotFound, code: "NAME_UNKNOWN", message: "this proxy knows no repository of that name"}
	}
	if err := p.requests.Acquire(r.Context(), 1); err != nil {
		return err
	}
	defer p.requests.Release(1)
	p.paced(w, r)
	p.pushes.enter()
	defer p.pushes.leave()
	switch {
	case t.kind == kindManifest && r.Method == http.MethodPut:
		return p.putManifest(w, r, repo, t)
	case t.kind == kindManifest:
		return p.getManifest(w, r, repo, t)
	case t.kind == kindBlob:
		return p.getBlob(w, r, repo, t)
	case t.kind == kindStart:
		return p.startUpload(w, r, repo)
	}
	return p.continueUpload(w, r, repo, t)
}

// record logs a request. Paths of what isn't passed on, and the causes of
// failures, are quoted by the log's handler.
func (p *Proxy) record(r *http.Request, t *target, rec *recorder, err error, took time.Duration) {
	attrs := []slog.Attr{slog.String("method", r.Method[:min(len(r.Method), 20)]), slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Duration("took", took)}
	level := slog.LevelInfo
	switch {
	case t == nil:
		attrs = append(attrs, slog.String("path", r.URL.Path[:min(len(r.URL.Path), 200)]))
	case t.kind == kindHealth:
		level = slog.LevelDebug
	default:
		attrs = append(attrs, slog.String("about", string(t.kind)), slog.String("repository", t.repo))
		if t.kind != kindUpload { // whoever has the ID has the upload
			attrs = append(attrs, slog.String("reference", t.ref))
		}
		if t.mirror != nil {
			attrs = append(attrs, slog.String("mirror", t.mirror.RegistryStr()))
		}
	}
	switch {
	case err != nil && r.Context().Err() != nil && !errors.Is(err, errSlow):
		attrs = append(attrs, slog.String("error", "the client went away"))
	case err != nil:
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	p.log.LogAttrs(r.Context(), level, "request", attrs...)
}
