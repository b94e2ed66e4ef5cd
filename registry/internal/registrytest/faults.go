package registrytest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/registry"
	embedded "github.com/bobbuild/bob/registry/serve"
)

// Faulty is a registry that fails: once it is armed, Fault may answer a request in place
// of Inner, and then returns true.
type Faulty struct {
	Inner http.Handler
	Armed atomic.Bool
	Fault func(w http.ResponseWriter, r *http.Request) bool
}

// ServeHTTP implements http.Handler.
func (f *Faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.Armed.Load() || !f.Fault(w, r) {
		f.Inner.ServeHTTP(w, r)
	}
}

// NewFaulty serves the fixture, if any, as app:1 with a fault, armed.
func NewFaulty(t *testing.T, f *Fixture, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := &Faulty{Inner: h, Fault: fault}
	host := Serve(t, server)
	if f != nil {
		f.Push(t.Context(), t, NewClient(t, nil), host+"/app:1")
	}
	server.Armed.Store(true)
	return host
}

// Times makes a fault happen n times only.
func Times(n int32, fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	var count atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		if count.Add(1) > n {
			return false
		}
		fault(w, r)
		return true
	}
}

// Always makes a fault happen to every request.
func Always(fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		fault(w, r)
		return true
	}
}

// On restricts a fault to one kind of request.
func On(method, pathPart string, fault func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == method && strings.Contains(r.URL.Path, pathPart) && fault(w, r)
	}
}

// Say answers with a status and an error of the distribution-spec.
func Say(status int, code string, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"said so"}]}`, code)
	}
}

// Body answers 200 with a body.
func Body(contentType, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, text)
	}
}

// Reset ends the connection without an answer.
func Reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// Hang answers nothing until the client is gone.
func Hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// CheckError checks that an error is ours, names the host, and says what is wanted.
func CheckError(t *testing.T, err error, host string, is error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	var e *registry.Error
	if !errors.As(err, &e) || e.Host != host {
		t.Errorf("error %#v is not an *Error of %s", err, host)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error is not %q", is)
	}
	for _, part := range append(want, host) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q", part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Error("error has several lines")
	}
}
