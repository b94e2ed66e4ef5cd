package proxy

import "net/http"

// A recorder notes the status and the size of an answer.
type recorder struct {
	http.ResponseWriter
	status int   // 0: nothing yet
	bytes  int64 // of the body
	broken bool  // the body isn't whole
	pace   *pace // nil: any will do
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	write := func() (int, error) { return w.ResponseWriter.Write(p) }
	var (
		n   int
		err error
	)
	if w.pace == nil {
		n, err = write()
	} else {
		n, err = w.pace.move(write)
	}
	w.bytes += int64(n)
	return n, err
}
