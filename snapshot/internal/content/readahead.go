package content

import "io"

// ahead reads a stream in a goroutine of its own, some buffers ahead of its user.
type ahead struct {
	full  chan chunk
	free  chan []byte
	quit  chan struct{}
	rest  []byte // of buf, unread
	buf   []byte
	err   error // after rest
	ended chan struct{}
}

type chunk struct {
	data []byte
	err  error
}

const (
	aheadSize  = 256 << 10
	aheadCount = 8
)

// readAhead begins to read r. The caller calls stop before it closes r.
func readAhead(r io.Reader) *ahead {
	a := &ahead{
		full: make(chan chunk, aheadCount), free: make(chan []byte, aheadCount),
		quit: make(chan struct{}), ended: make(chan struct{}),
	}
	for range aheadCount {
		a.free <- make([]byte, aheadSize)
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.ended)
	for {
		var b []byte
		select {
		case <-a.quit:
			return
		case b = <-a.free:
		}
		n := 0
		var err error
		for n < len(b) && err == nil {
			var m int
			m, err = r.Read(b[n:])
			n += m
		}
		a.full <- chunk{b[:n], err} // has room for all buffers
		if err != nil {
			return
		}
	}
}

// Read is for one goroutine.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.buf != nil {
			a.free <- a.buf[:cap(a.buf)]
		}
		c := <-a.full
		a.buf, a.rest, a.err = c.data, c.data, c.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// stop ends the goroutine and waits for it.
func (a *ahead) stop() {
	close(a.quit)
	<-a.ended
}
