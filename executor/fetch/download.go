package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
)

// File is a file to fetch by HTTP.
type File struct {
	URL      string
	Name     string        // that it gets: a single path element
	Checksum digest.Digest // of the content, "" if any will do
}

// Version is one state of a file: what its content is, and what the server
// said that helps to tell whether it still has that. It can be kept as JSON.
type Version struct {
	Digest       digest.Digest // SHA-256 of the content
	ETag         string        `json:",omitempty"` // as it was sent
	LastModified string        `json:",omitempty"` // as it was sent
}

// Time returns the time of Last-Modified; 1970-01-01 if the server said none
// that can be read, as BuildKit has it.
func (v *Version) Time() time.Time {
	if t, err := http.ParseTime(v.LastModified); err == nil {
		return t
	}
	return time.Unix(0, 0).UTC()
}

// Download fetches f into the directory that dir returns, with the bytes on the
// disk as they come and never more than a part of them in memory. known is what
// was fetched before, nil for nothing: where the server has that still, dir isn't
// called and known is the result. Transient failures are tried again from the
// start. After an error there is no file. progress, if not nil, is told how many
// bytes have arrived, and of how many (-1: not known).
func (c *Client) Download(ctx context.Context, f File, known *Version, dir func() (string, error), progress func(got, of int64)) (*Version, error) {
	d := &download{client: c, File: f, known: known, dir: dir, progress: progress}
	if d.progress == nil {
		d.progress = func(int64, int64) {}
	}
	what := "download " + Redact(f.URL)
	var v *Version
	err := c.retried(ctx, what, func(ctx context.Context, dog *patience.Watchdog) (err error) {
		v, err = d.request(ctx, dog)
		return err
	})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s: %w", what, bare(err))
	}
	return v, err
}

// download is one call of Download.
type download struct {
	File

	client   *Client
	known    *Version
	dir      func() (string, error)
	progress func(got, of int64)
}

// maxRedirects is how often a server may send elsewhere, as in net/http.
const maxRedirects = 10

// request makes one request and takes what it brings.
func (d *download) request(ctx context.Context, dog *patience.Watchdog) (*Version, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
	if err != nil {
		return nil, err
	}
	d.client.header(req)
	if d.known != nil {
		if d.known.ETag != "" {
			req.Header.Set("If-None-Match", d.known.ETag)
		} else if d.known.LastModified != "" {
			req.Header.Set("If-Modified-Since", d.known.LastModified)
		}
	}
	dog.Name(req.Method, req.URL.Host)
	carrier := *d.client.http
	carrier.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		dog.Name(req.Method, req.URL.Host)
		dog.Moved()
		if len(via) >= maxRedirects {
			return fmt.Errorf("stopped after %d redirects", maxRedirects)
		}
		return nil
	}
	resp, err := carrier.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	dog.Moved()
	switch {
	case d.known != nil && d.same(resp):
		return d.known, nil
	case resp.StatusCode != http.StatusOK:
		return nil, &statusError{resp.StatusCode, resp.Status, patience.RetryAfter(resp.Header, time.Now())}
	}
	return d.save(resp, dog.Moved)
}

// same reports whether the answer is that the known version is still current:
// by its status, or by its tag where a server sends all the same.
func (d *download) same(resp *http.Response) bool {
	if resp.StatusCode == http.StatusNotModified {
		return true
	}
	strong := func(tag string) string { return strings.TrimPrefix(tag, "W/") }
	tag := strong(resp.Header.Get("ETag"))
	return resp.StatusCode == http.StatusOK && tag != "" && tag == strong(d.known.ETag)
}

// header sets what every request carries.
func (c *Client) header(req *http.Request) {
	req.Header.Set("User-Agent", c.o.UserAgent)
	// The bytes themselves, not a compression of them.
	req.Header.Set("Accept-Encoding", "identity")
	host := req.URL.Hostname()
	if h, ok := c.o.Secret(req.Context(), "HTTP_AUTH_HEADER_"+host); ok {
		req.Header.Set("Authorization", strings.TrimSpace(string(h)))
	} else if t, ok := c.o.Secret(req.Context(), "HTTP_AUTH_TOKEN_"+host); ok {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(t)))
	}
}

// save writes the body of resp to the file, and checks it.
func (d *download) save(resp *http.Response, moved func()) (v *Version, err error) {
	dir, err := d.dir()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// An attempt that failed has removed its file.
	out, err := root.OpenFile(d.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			v, err = nil, errors.Join(err, root.Remove(d.Name))
		}
	}()
	v = &Version{ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified")}
	if v.Digest, err = d.receive(resp, out, moved); err != nil {
		return nil, err
	}
	if err := out.Chmod(0o600); err != nil {
		return nil, err
	}
	return v, root.Chtimes(d.Name, v.Time(), v.Time())
}

// receive copies the body to out and returns its digest.
func (d *download) receive(resp *http.Response, out io.Writer, moved func()) (digest.Digest, error) {
	sum := digest.SHA256.Digester()
	writers := []io.Writer{out, sum.Hash()}
	check := sum
	if d.Checksum != "" && d.Checksum.Algorithm() != digest.SHA256 {
		check = d.Checksum.Algorithm().Digester()
		writers = append(writers, check.Hash())
	}
	budget := bounded.NewBudget(d.client.o.MaxSize)
	if err := budget.Entry(resp.ContentLength, 0); err != nil {
		return "", err
	}
	body := &counted{r: budget.Reader(resp.Body), moved: func(n int64) {
		moved()
		d.progress(n, resp.ContentLength)
	}}
	n, err := io.Copy(io.MultiWriter(writers...), body)
	if tooLarge, ok := errors.AsType[*bounded.BudgetError](body.err); ok {
		return "", tooLarge
	}
	if body.err != nil {
		return "", fmt.Errorf("%w after %d bytes: %w", errBroken, n, bare(body.err))
	}
	if err != nil {
		return "", err
	}
	if got := check.Digest(); d.Checksum != "" && got != d.Checksum {
		return "", fmt.Errorf("digest mismatch: what was received is %s, expected was %s", got, d.Checksum)
	}
	return sum.Digest(), nil
}

// counted tells of the bytes that are read through it, and keeps its error
// apart from that of who writes them.
type counted struct {
	r     io.Reader
	n     int64
	moved func(int64)
	err   error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if n > 0 {
		c.moved(c.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

// CheckURL refuses what isn't an http or https URL with a host.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("URL %s: %w", Redact(address), bare(err))
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("URL %s: want http:// or https:// and a host", Redact(address))
	}
	return nil
}
