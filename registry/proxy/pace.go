package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// A client may pause while it sends or takes a body, but not occupy the proxy with a
// few bytes now and then.
const (
	paceWindow = 5 * time.Minute
	paceLeast  = 64 << 10 // bytes in a window
	// manifestTime is how long a manifest may take, of which few are read at once.
	manifestTime = time.Minute
)

// errSlow is the answer to a request whose body moves too slowly.
var errSlow = &refusal{status: http.StatusRequestTimeout, code: "UNAVAILABLE", message: "too little of the body came for too long"}

// paces are the limits of one proxy.
type paces struct {
	window, manifest time.Duration
	least            int64
}

// A pace ends operations that move too few bytes. Time in which nobody waits for them
// doesn't count. It is for one goroutine.
type pace struct {
	window time.Duration
	least  int64  // bytes that are to move in a window
	stop   func() // ends an operation that waits

	left  time.Duration // of the window
	moved int64         // in it
}

func (p *paces) begin(stop func()) *pace {
	return &pace{window: p.window, least: p.least, stop: stop, left: p.window}
}

// move waits for an operation that moves bytes.
func (p *pace) move(operation func() (int, error)) (int, error) {
	begin := time.Now()
	timer := time.AfterFunc(max(0, p.left), p.stop)
	n, err := operation()
	inTime := timer.Stop()
	p.left -= time.Since(begin)
	if p.moved += int64(n); p.moved >= p.least {
		p.left, p.moved = p.window, 0
	}
	if !inTime && err != nil {
		err = errSlow
	}
	return n, err
}

// A pacedBody is a body that has to come at a pace.
type pacedBody struct {
	io.ReadCloser

	pace *pace
	slow atomic.Bool // it was given up
}

// Read implements io.Reader.
func (b *pacedBody) Read(p []byte) (int, error) {
	n, err := b.pace.move(func() (int, error) { return b.ReadCloser.Read(p) })
	if err == errSlow { //nolint:errorlint // as move returns it
		b.slow.Store(true)
	}
	return n, err
}

// gaveUp reports whether a client's body came too slowly. Other errors follow from
// that: net/http ends the request's context when it can't read.
func gaveUp(r *http.Request) bool {
	b, ok := r.Body.(*pacedBody)
	return ok && b.slow.Load()
}

// past is a deadline that ends waiting operations.
func past() time.Time { return time.Unix(1, 0) }
