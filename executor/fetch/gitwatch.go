package fetch

import (
	"context"
	"io"
	"net/http/httptrace"
	"strings"
	"time"
)

const (
	// listPatience is how many idle times a list of references may take in all.
	listPatience = 5
	// gitGrace is how long what go-git does may take to heed the end of its context:
	// connecting by SSH never does.
	gitGrace = 5 * time.Second
)

// leftError is that go-git didn't heed the end of its context.
type leftError struct{ error }

func (e *leftError) Unwrap() error { return e.error }

// askGit has f ask remote, as [Client.retried] does. What doesn't end with its context
// is left behind, and isn't tried again.
func askGit[T any](ctx context.Context, c *Client, remote string, f func(context.Context, *watchdog) (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	err = c.retried(ctx, "git repository "+Redact(remote), func(ctx context.Context, dog *watchdog) error {
		done := make(chan result, 1)
		go func() {
			got, err := f(ctx, dog)
			done <- result{got, err}
		}()
		var r result
		select {
		case r = <-done:
		case <-ctx.Done():
			select {
			case r = <-done:
			case <-time.After(gitGrace):
				return &leftError{context.Cause(ctx)}
			}
		}
		answer = r.answer
		return r.err
	})
	return answer, err
}

// listed returns the context for a request that begins with a list of references. How
// much of it has come shows in no way: dog lets it have some time in all, by HTTP from
// its first byte on.
func listed(ctx context.Context, address string, dog *watchdog) context.Context {
	if !strings.HasPrefix(address, "http") {
		dog.allow(listPatience)
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { dog.allow(listPatience) }})
}

// A watchedRepository notes the bytes of packs that come.
type watchedRepository struct {
	*repository

	dog *watchdog
}

// PackfileWriter implements storer.PackfileWriter.
func (r *watchedRepository) PackfileWriter() (io.WriteCloser, error) {
	w, err := r.repository.PackfileWriter()
	if err != nil {
		return nil, err
	}
	r.dog.allow(1)
	return &watchedPack{w, r.dog}, nil
}

type watchedPack struct {
	io.WriteCloser

	dog *watchdog
}

// Write implements io.Writer.
func (p *watchedPack) Write(b []byte) (int, error) {
	p.dog.sleep() // the disk isn't the server's
	n, err := p.WriteCloser.Write(b)
	p.dog.wake()
	return n, err
}

// Close implements io.Closer. It makes the pack's index, which takes its time.
func (p *watchedPack) Close() error {
	p.dog.sleep()
	return p.WriteCloser.Close()
}

// heard is told what a server says of its work.
type heard struct{ dog *watchdog }

// Write implements io.Writer.
func (h heard) Write(b []byte) (int, error) {
	h.dog.move()
	return len(b), nil
}
