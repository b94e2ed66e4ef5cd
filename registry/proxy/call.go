package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/patience"
)

const (
	maxRedirects = 5
	maxErrorBody = 64 << 10
)

// A call is one request to a registry.
type call struct {
	method  string
	url     *url.URL
	header  http.Header
	body    func() io.Reader // nil: the request has no body
	once    bool             // body can be read once only
	size    int64            // of body, bytes; -1: unknown, sent in chunks
	unasked bool             // body is sent without waiting for 100 Continue
}

// reads reports whether the request changes nothing.
func (c *call) reads() bool { return c.method == http.MethodGet || c.method == http.MethodHead }

// call returns a request about a path below the session's repository, such as
// "blobs/uploads/", with the client's headers of these names.
func (s *session) call(r *http.Request, path string, names ...string) *call {
	c := &call{method: r.Method, url: s.URL("/v2/" + s.repo.RepositoryStr() + "/" + path), header: make(http.Header)}
	for _, name := range names {
		if values := r.Header.Values(name); len(values) > 0 {
			c.header[name] = values
		}
	}
	return c
}

// An answer is a registry's response, with the Authorization header of the request.
type answer struct {
	*http.Response
	session *session
	used    string // the Authorization header; may be ""
}

// errRepeat tells the client to make its request again: its body is gone.
var errRepeat = &refusal{
	status: http.StatusServiceUnavailable, code: "UNAVAILABLE", retryAfter: "1",
	message: "the registry asked for a new token in the middle of an upload; the proxy has one now, send the blob again",
}

// do makes the request with credentials, once more with fresh ones if the
// registry asks for them, and follows redirects of reads within the host. The
// caller closes the answer's body.
func (s *session) do(ctx context.Context, c *call) (*answer, error) {
	header, err := s.authorization(ctx)
	if err != nil {
		return nil, err
	}
	renewed, to := false, c.url
	for hops := 0; ; {
		resp, body, err := s.send(ctx, c, to, header) //nolint:bodyclose // closeBody does, or the caller
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusUnauthorized:
			closeBody(resp.Body)
			fresh, err := s.renew(ctx, header, resp)
			if err != nil {
				return nil, err
			}
			if renewed || fresh == header {
				return nil, s.denied()
			}
			if !body.takeBack() {
				return nil, errRepeat
			}
			renewed, header = true, fresh
		case resp.StatusCode == http.StatusExpectationFailed && !c.unasked && body.takeBack():
			closeBody(resp.Body)
			c.unasked = true
		case !c.reads(), resp.StatusCode < 300, resp.StatusCode >= 400:
			return &answer{Response: resp, session: s, used: header}, nil
		default:
			next, err := s.Follow(to, resp.Header.Get("Location"))
			if err == nil && !s.Is(next) {
				return &answer{Response: resp, session: s, used: header}, nil
			}
			closeBody(resp.Body)
			if err != nil {
				return nil, err
			}
			if hops++; hops > maxRedirects {
				return nil, errors.New("the registry redirects in a circle")
			}
			to = next
		}
	}
}

// send makes the request, and repeats it while the host can't be reached and the
// request may be repeated. body is the body that was lent to the last attempt; it may
// be nil.
func (s *session) send(ctx context.Context, c *call, to *url.URL, header string) (resp *http.Response, body *sendBody, err error) {
	waiting := repeater{host: s.Host, log: s.log, attempts: s.patience.Begin()}
	err = waiting.run(ctx, func() (again bool, err error) {
		body = c.open()
		resp, err = s.attempt(ctx, c, to, body, header) //nolint:bodyclose // do closes it, or its caller
		return c.mayRepeat(err) && body.takeBack(), err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reach %s: %w", s.Host, s.cleanse(err, header))
	}
	return resp, body, nil
}

// renew answers a 401 to a request that was sent with a header. It returns the same header
// if there is no other answer.
func (s *session) renew(ctx context.Context, header string, resp *http.Response) (string, error) {
	if !s.Is(resp.Request.URL) {
		return "", errors.New("the host that the registry names for uploads wants credentials; those of the registry aren't meant for it")
	}
	fresh, err := s.auth.Renew(ctx, header, auth.Challenge(resp.Header, s.Scheme == "http"))
	return fresh, s.tokenError(err)
}

// attempt makes the request once, with header as Authorization if it goes to the
// registry's own host.
func (s *session) attempt(ctx context.Context, c *call, to *url.URL, body *sendBody, header string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, to.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header = c.header.Clone()
	req.Header.Set("User-Agent", userAgent)
	if body != nil {
		req.Body, req.ContentLength = body, c.size
		if c.once && !c.unasked {
			req.Header.Set("Expect", "100-continue")
		}
	}
	if !s.Is(to) {
		return s.away.RoundTrip(req)
	}
	if header != "" {
		req.Header.Set("Authorization", header)
	}
	return s.home.RoundTrip(req)
}

// mayRepeat reports whether the request may be made again after err. A request that
// changes an upload may only be repeated if nothing was sent, since the upload would be
// at another offset otherwise.
func (c *call) mayRepeat(err error) bool {
	if err == nil || !patience.Passing(err) {
		return false
	}
	switch {
	case c.reads(), c.method == http.MethodPost:
		return true
	case c.method == http.MethodPut && c.body != nil && !c.once: // a manifest
		return true
	}
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// A sendBody lends the client's body to one attempt. net/http may still want to
// read it when the attempt is over.
type sendBody struct {
	io.Reader
	once  bool
	state atomic.Int32
}

const (
	bodyWhole int32 = iota
	bodyBegun
	bodyTaken // back
)

func (c *call) open() *sendBody {
	if c.body == nil || c.size == 0 {
		return nil
	}
	return &sendBody{Reader: c.body(), once: c.once}
}

// Read implements io.Reader.
func (b *sendBody) Read(p []byte) (int, error) {
	if !b.state.CompareAndSwap(bodyWhole, bodyBegun) && b.state.Load() == bodyTaken {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.Reader.Read(p)
}

// WriteTo implements io.WriterTo: net/http sends each write as a chunk of its
// own, so they had better be large.
func (b *sendBody) WriteTo(w io.Writer) (int64, error) { return copyStream(w, readerFunc(b.Read)) }

// Close implements io.Closer. The server closes the body.
func (b *sendBody) Close() error { return nil }

// takeBack reports whether another attempt may use the body: it can be read again, or
// nothing of it was read and the last attempt can't read it any more.
func (b *sendBody) takeBack() bool {
	return b == nil || !b.once || b.state.CompareAndSwap(bodyWhole, bodyTaken)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// copyStream copies by one buffer of bufferSize.
func copyStream(w io.Writer, r io.Reader) (int64, error) {
	buffer, ok := buffers.Get().(*[bufferSize]byte)
	if !ok {
		buffer = new([bufferSize]byte)
	}
	defer buffers.Put(buffer)
	return io.CopyBuffer(writerOnly{w}, r, buffer[:])
}

type writerOnly struct{ io.Writer }

func (a *answer) conceal(text string) string { return a.session.conceal(text, a.used) }

// passedHeaders are the headers of a registry's answer that the client gets.
var passedHeaders = []string{
	"Accept-Ranges", "Content-Encoding", "Content-Range", "Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version",
	"Etag", "Last-Modified", "Oci-Chunk-Min-Length", "Oci-Subject", "Range", "Retry-After",
}

func (a *answer) passHeaders(h http.Header) {
	for _, name := range passedHeaders {
		for _, value := range a.Header.Values(name) {
			if a.conceal(value) == value {
				h.Add(name, value)
			}
		}
	}
}

// relay passes the registry's answer on to the client. It rewrites errors, and passes
// everything else on unchanged.
func (a *answer) relay(w *recorder) error {
	defer closeBody(a.Body)
	switch {
	case a.StatusCode >= 400:
		body, _ := io.ReadAll(io.LimitReader(a.Body, maxErrorBody)) // the status says enough
		if after := a.Header.Get("Retry-After"); after != "" && a.conceal(after) == after {
			w.Header().Set("Retry-After", after)
		}
		refuseWith(w, a.StatusCode, errorsOf(body, a.conceal))
		return nil
	case a.StatusCode < 200:
		return fmt.Errorf("the registry answers with status %d", a.StatusCode)
	case a.StatusCode >= 300:
		return a.redirect(w)
	}
	a.passHeaders(w.Header())
	if a.ContentLength >= 0 && a.StatusCode != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.FormatInt(a.ContentLength, 10))
	}
	w.WriteHeader(a.StatusCode)
	if a.Request.Method == http.MethodHead {
		return nil
	}
	_, err := copyStream(w, &pacedBody{ReadCloser: a.Body, pace: a.session.paces.begin(func() { _ = a.Body.Close() })})
	w.broken = err != nil
	return err
}

// redirect sends the client to another host.
func (a *answer) redirect(w *recorder) error {
	if a.Request.Method != http.MethodGet && a.Request.Method != http.MethodHead {
		return fmt.Errorf("the registry redirects a %s", a.Request.Method)
	}
	to, err := a.session.Follow(a.Request.URL, a.Header.Get("Location"))
	if err != nil {
		return err
	}
	location := to.String()
	if a.conceal(location) != location {
		return errors.New("the registry's redirect holds credentials of the proxy's")
	}
	w.Header().Set("Location", location)
	w.WriteHeader(a.StatusCode)
	return nil
}
