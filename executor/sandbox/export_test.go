package sandbox

import "io"

// Stream lets tests copy a pipe as Run does.
type Stream struct{ *stream }

// OpenStream opens a stream. Write writes to its pipe.
func OpenStream(dst io.Writer) (Stream, error) {
	s, err := openStream("test", dst)
	return Stream{s}, err
}

// Start starts copying, which closes this end of the pipe.
func (s Stream) Start(fail func(error)) { s.start(fail) }

// Finish finishes copying.
func (s Stream) Finish() error { return s.finish() }

// Fd returns the descriptor of the end of the pipe that a process inherits.
func (s Stream) Fd() int { return int(s.w.Fd()) }
