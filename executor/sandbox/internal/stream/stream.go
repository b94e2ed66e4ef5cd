// Package stream carries what a process writes to pipes to writers.
package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// streamBuffer is how much output is read, and written, at once.
const streamBuffer = 32 << 10

// An Output is the standard output and the standard error of one process.
type Output struct {
	streams []*stream // one for both if they have the same writer, else two
}

// Open opens an output to two writers; nil discards. If both are the same, the order of
// what is written is kept. The caller calls Start when the process has inherited the files,
// and then Finish; or only Finish.
func Open(stdout, stderr io.Writer) (*Output, error) {
	first, err := openStream("standard output", stdout)
	if err != nil {
		return nil, err
	}
	if sameWriter(stdout, stderr) {
		return &Output{[]*stream{first}}, nil
	}
	second, err := openStream("standard error", stderr)
	if err != nil {
		return nil, errors.Join(err, first.finish())
	}
	return &Output{[]*stream{first, second}}, nil
}

// Stdout returns the file for the process to write to.
func (o *Output) Stdout() *os.File { return o.streams[0].w }

// Stderr returns the file for the process to write errors to.
func (o *Output) Stderr() *os.File { return o.streams[len(o.streams)-1].w }

// Start begins to copy, each stream in a goroutine of its own. fail is called if a writer
// fails, after which the output is read on and lost, so that the process doesn't block
// before it is stopped.
func (o *Output) Start(fail func(error)) {
	for _, s := range o.streams {
		s.start(fail)
	}
}

// Finish waits until everything that the process wrote has been copied. The process has
// ended; somebody else may still hold the pipes, a process outside the container that was
// sent a descriptor. It returns what went wrong since Start.
func (o *Output) Finish() (err error) {
	for _, s := range o.streams {
		err = errors.Join(err, s.finish())
	}
	return err
}

// stream carries what the container writes to a pipe to a writer. Its memory
// is one buffer, however long a line is.
type stream struct {
	name string // for errors
	r, w *os.File
	dst  io.Writer
	done chan error
}

// openStream returns a stream to dst; nil discards. The caller calls start
// when the process has inherited w, and then finish; or only finish.
func openStream(name string, dst io.Writer) (*stream, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if dst == nil {
		dst = io.Discard
	}
	return &stream{name: name, r: r, w: w, dst: dst}, nil
}

// start begins to copy. fail is called if dst fails, after which the output is
// read on and lost, so that the process doesn't block before it is stopped.
func (s *stream) start(fail func(error)) {
	_ = s.w.Close()
	s.done = make(chan error, 1)
	go func() {
		err := s.copy(fail)
		s.done <- err
	}()
}

// finish waits until everything that the process wrote has been copied, and
// closes the pipe. The process has ended; somebody else may still hold the
// pipe, a process outside the container that was sent the descriptor.
func (s *stream) finish() error {
	_ = s.w.Close()
	var err error
	if s.done != nil {
		// A blocked read returns; what is left is then read without blocking.
		_ = s.r.SetReadDeadline(time.Unix(1, 0))
		err = <-s.done
	}
	_ = s.r.Close()
	return err
}

// copy copies until the end of the pipe, or of its content after the deadline.
func (s *stream) copy(fail func(error)) error {
	buf := make([]byte, streamBuffer)
	var failed error
	write := func(b []byte) {
		if failed != nil || len(b) == 0 {
			return
		}
		if _, err := s.dst.Write(b); err != nil {
			failed = fmt.Errorf("write %s: %w", s.name, err)
			fail(failed)
		}
	}
	for {
		n, err := s.r.Read(buf)
		write(buf[:n])
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errors.Join(failed, s.drain(buf, write))
		case errors.Is(err, io.EOF):
			return failed
		default:
			return errors.Join(failed, fmt.Errorf("read %s: %w", s.name, err))
		}
	}
}

// drain writes what the pipe holds now. No more than a full pipe of it can be
// of the ended process, so that another writer can't keep it going for ever.
func (s *stream) drain(buf []byte, write func([]byte)) error {
	raw, err := s.r.SyscallConn()
	if err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	var left int
	var n int
	read := func(fd uintptr) { n, err = unix.Read(int(fd), buf[:min(left, len(buf))]) }
	size := func(fd uintptr) { left, err = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0) }
	// Control, unlike Read, doesn't look at the deadline.
	if errControl := raw.Control(size); errControl != nil || err != nil {
		return fmt.Errorf("read %s: %w", s.name, errors.Join(errControl, err))
	}
	for left > 0 {
		if errControl := raw.Control(read); errControl != nil {
			return fmt.Errorf("read %s: %w", s.name, errControl)
		}
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), err == nil && n == 0:
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", s.name, err)
		}
		write(buf[:n])
		left -= n
	}
	return nil
}

// sameWriter reports whether both are the same writer, to which the streams
// must not be copied concurrently. It doesn't panic for what can't be compared.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a != nil && a == b
}
