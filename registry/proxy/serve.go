package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

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
		// Without this the client would not see that something is missing.
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

// paced makes the client send its body, and take the answer's, at the proxy's pace.
func (p *Proxy) paced(w *recorder, r *http.Request) {
	client := http.NewResponseController(w.ResponseWriter)
	// Only a server of another kind has no deadlines, and its own limits.
	w.pace = p.paces.begin(func() { _ = client.SetWriteDeadline(past()) })
	r.Body = &pacedBody{ReadCloser: r.Body, pace: p.paces.begin(func() { _ = client.SetReadDeadline(past()) })}
}
