package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
)

// What can fail besides what package oci names, as errors name it.
const (
	opConnect      = "connect to"
	opReadLogin    = "read the credentials for"
	opAuthenticate = "authenticate for"
	opPreparePush  = "prepare push to"
	opPushBlob     = "push blob"
	opPushManifest = "push manifest"
)

// maxErrorBody is how much of an answer is read for what went wrong, bytes.
const maxErrorBody = 64 << 10

// errSpeaksTLS is what a server says that got plain HTTP and wanted TLS.
var errSpeaksTLS = errors.New("server speaks https, not plain HTTP")

// ErrDenied is an answer of 401 or 403. Use errors.Is.
var ErrDenied = errors.New("access denied")

// Error is a failed operation on a registry. Its text names the host and the
// repository and says what to do; credentials never appear in it.
type Error struct {
	Op         string        // "pull manifest", "push blob", …
	Host       string        // as references write it: "docker.io"
	Repository string        // with host; "" if it isn't about one
	Reference  string        // with tag or digest; "" if it isn't about one
	Digest     string        // of the blob in question; "" when it isn't about one
	Status     int           // HTTP status; 0 when no answer came or the answer was fine
	Codes      []string      // the registry's own error codes, such as MANIFEST_UNKNOWN
	Message    string        // the registry's own words
	RetryAfter time.Duration // what the registry asked for; 0 = nothing
	Attempts   int           // how often it was tried, when more than once
	Err        error         // the cause when it isn't Status

	anonymous bool                 // no credentials were sent
	challenge *transport.Challenge // of a 401
	permanent bool                 // transient by its looks, but not worth a retry
	again     bool                 // see Again
	oci       bool                 // about a manifest of one of OCI's media types
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches [oci.ErrNotFound] and [ErrDenied] by status.
func (e *Error) Is(target error) bool {
	switch target {
	case oci.ErrNotFound:
		return e.Status == http.StatusNotFound
	case ErrDenied:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return false
}

// Again reports whether the blob should be opened once more after its reader failed
// with the error. Its bytes don't have the promised digest, which shows only at the
// end, and may be right the next time or at the next mirror.
func (e *Error) Again() bool { return e.again }

// Blob returns the operation and its blob; the digest is "" if the error isn't about a
// blob. See [oci.LostBlob].
func (e *Error) Blob() (op string, d digest.Digest) { return e.Op, digest.Digest(e.Digest) }

// Error says what failed, on what, why, and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if subject := e.subject(); subject != "" {
		b.WriteString(" " + subject)
	}
	what, hint := e.explain()
	b.WriteString(": " + what)
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, " (tried %d times)", e.Attempts)
	}
	if hint != "" {
		b.WriteString("; " + hint)
	}
	return b.String()
}

func (e *Error) subject() string {
	subject := e.Reference
	if subject == "" {
		subject = e.Repository
	}
	if subject == "" {
		subject = e.Host
	}
	if e.Digest != "" && !strings.Contains(subject, e.Digest) {
		subject = e.Digest + " of " + subject
	}
	return subject
}

// explain gives the cause in plain words and what to do about it.
func (e *Error) explain() (what, hint string) {
	if e.Status != 0 {
		return e.explainStatus()
	}
	if e.Err == nil {
		return "no reason given", ""
	}
	return explainCause(e.Err, e.Host)
}

func (e *Error) explainStatus() (what, hint string) {
	status := e.statusText()
	push := strings.HasPrefix(e.Op, "push") || strings.HasPrefix(e.Op, "prepare")
	switch {
	case e.oci && e.Status == http.StatusUnsupportedMediaType:
		return "the registry doesn't take OCI media types " + status, "build the image with --oci-mediatypes=false"
	case e.oci && e.Status < 500 && (e.has("MANIFEST_INVALID") || e.has("UNSUPPORTED")):
		return "the registry refuses the manifest " + status,
			"if it is one that knows no OCI media types, build the image with --oci-mediatypes=false"
	case e.Status == http.StatusUnauthorized && e.anonymous:
		return "the registry wants credentials and none are known for " + e.Host + " " + status,
			fmt.Sprintf("check the name, and log in with %q", "docker login "+e.Host)
	case e.Status == http.StatusUnauthorized:
		return "the registry does not accept the credentials known for " + e.Host + " " + status,
			fmt.Sprintf("log in again with %q, or ask for access to the repository", "docker login "+e.Host)
	case e.Status == http.StatusForbidden:
		verb := "pull from"
		if push {
			verb = "push to"
		}
		return "access denied " + status, "ask for the right to " + verb + " this repository"
	case e.Status == http.StatusNotFound:
		return e.explainNotFound(status)
	case e.Status == http.StatusRequestEntityTooLarge:
		return "the registry, or a proxy before it, refuses so large a body " + status,
			"raise its limit (nginx: client_max_body_size)"
	case e.Status == http.StatusTooManyRequests:
		hint = "wait and try again"
		if e.RetryAfter > 0 {
			hint = "try again in " + e.RetryAfter.String()
		}
		if e.anonymous {
			hint += ", or log in for a higher limit"
		}
		return "too many requests " + status, hint
	case e.Status >= 500:
		return "the registry has a problem of its own " + status, "try again later, or see its log"
	}
	if e.Status >= 400 {
		return "the registry refuses it " + status, ""
	}
	return "unexpected answer " + status, ""
}

func (e *Error) explainNotFound(status string) (what, hint string) {
	const private = "check the name; if it is private, log in with \"docker login "
	switch {
	case e.has("NAME_UNKNOWN"):
		return "no such repository " + status, private + e.Host + "\""
	case e.has("BLOB_UPLOAD_UNKNOWN"):
		return "the registry has forgotten the upload " + status, "push again"
	case e.has("BLOB_UNKNOWN") || e.Digest != "":
		return "the registry has no such blob, the image there is incomplete " + status, "push that image again"
	case e.has("MANIFEST_UNKNOWN") || e.Reference != "":
		return "no such image " + status, private + e.Host + "\""
	}
	return "nothing there " + status, "is this a registry?"
}

// statusText is "(404 Not Found, MANIFEST_UNKNOWN)".
func (e *Error) statusText() string {
	text := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if len(e.Codes) > 0 {
		text += ", " + strings.Join(e.Codes, ", ")
	}
	return "(" + strings.TrimSpace(text) + ")"
}

// explainCause puts the errors of the network, of TLS and of contexts into
// words.
func explainCause(err error, host string) (what, hint string) {
	var (
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		stalled *patience.StallError
		netErr  net.Error
		proxy   *wire.ProxyError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &proxy):
		return proxy.Error() + " for " + host, "check HTTPS_PROXY, and whether " + host + " belongs into NO_PROXY"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy that HTTP_PROXY or HTTPS_PROXY names doesn't answer: " + words.Redact(op.Err.Error()),
			"check these variables, and whether " + host + " belongs into NO_PROXY"
	case errors.As(err, &op) && op.Net == "unix":
		return words.Redact(err.Error()), "is bob proxy running, and is --proxy its socket?"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.As(err, &stalled):
		return err.Error(), ""
	case errors.Is(err, http.ErrSchemeMismatch):
		return host + " speaks plain HTTP, not https", "allow that with --insecure if you trust the network"
	case errors.Is(err, errSpeaksTLS):
		return host + " speaks https, not plain HTTP", ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", "is the registry running, and is the port right?"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host " + dns.Name, "check the name and this machine's DNS"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return "the registry doesn't take this client's certificate, or wants one: " + op.Err.Error(),
			"show it one that it knows, with --registry-cert and --registry-key"
	case errors.As(err, &cert):
		return "certificate not trusted: " + cert.Err.Error(), certHint(cert.Err)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return words.Redact(err.Error()), "check this machine's network"
	case errors.Is(err, net.ErrClosed), err == io.EOF: //nolint:errorlint // a wrapped one says more
		return "the registry closed the connection without an answer", ""
	case errors.As(err, &netErr) && netErr.Timeout():
		return "timed out: " + words.Redact(err.Error()), "is the host reachable from here?"
	}
	return words.Redact(err.Error()), ""
}

func certHint(err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "use a name that the certificate holds, or --insecure"
	}
	return "add its CA to this machine's trust store, name it with --registry-ca, or use --insecure"
}

// fill takes status, codes and message from an answer.
func (e *Error) fill(resp *http.Response, body []byte) {
	e.Status = resp.StatusCode
	e.RetryAfter = patience.RetryAfter(resp.Header, time.Now())
	errs, ok := words.Errors(body)
	if !ok {
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			e.Message = words.Line(string(body))
		}
		return
	}
	var said []string
	for _, one := range errs {
		e.addCode(one.Code)
		if one.Message != "" && !slices.Contains(said, one.Message) {
			said = append(said, one.Message)
		}
	}
	e.Message = words.Line(strings.Join(said, "; "))
}

// damaged notes that what was sent has arrived with other bytes, if that is what the
// registry says.
func (e *Error) damaged() {
	if e.Err == nil && e.has("DIGEST_INVALID") {
		e.Err = oci.Spoiled("the registry says so")
	}
}

func (e *Error) has(code string) bool { return slices.Contains(e.Codes, code) }

func (e *Error) addCode(code string) {
	if code != "" && !slices.Contains(e.Codes, code) {
		e.Codes = append(e.Codes, code)
	}
}
