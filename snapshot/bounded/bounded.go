// Package bounded reads what somebody else may have made: a file may be a link to
// /dev/zero or a fifo that nobody writes to, and a stream may have no end. What it
// reads has at most as many bytes as the caller says, and every read ends with a
// context.
package bounded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// A LimitError is that there are more bytes than may be read.
type LimitError struct{ Limit int64 } // in bytes

// Error names the bound.
func (e *LimitError) Error() string { return "it is larger than the " + size(e.Limit) + " allowed" }

func size(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1<<10, []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

// NoLimit is a limit for [Reader] that nothing reaches.
const NoLimit = math.MaxInt64 - 1

// Reader returns a reader of r that fails with a [LimitError] if there are more than
// limit bytes, and with the cause of ctx once that has ended. A read of r that has
// begun it doesn't interrupt.
func Reader(ctx context.Context, r io.Reader, limit int64) io.Reader {
	return &reader{ctx: ctx, r: r, limit: limit, left: limit}
}

type reader struct {
	ctx         context.Context //nolint:containedctx // of one reading, which the value stands for
	r           io.Reader
	limit, left int64
}

func (b *reader) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	if len(p) == 0 {
		return 0, nil
	}
	// One byte more than allowed tells the end from too much.
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if int64(n) > b.left {
		return int(b.left), &LimitError{b.limit}
	}
	b.left -= int64(n)
	return n, err
}

// ReadAll returns all bytes of r, of which there may be at most limit. It returns when
// ctx ends even if r then still waits, for instance for a terminal; what r returns
// after that is lost.
func ReadAll(ctx context.Context, r io.Reader, limit int64) ([]byte, error) {
	return await(ctx, func() ([]byte, error) { return io.ReadAll(Reader(ctx, r, limit)) })
}

// Interruptible returns a reader of r whose reads end with ctx, even if r itself still
// waits then. It reads ahead of what is asked for.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { _ = out.CloseWithError(context.Cause(ctx)) })
	started := sync.OnceFunc(func() {
		go func() {
			_, err := io.Copy(in, r)
			_ = in.CloseWithError(err)
		}()
	})
	return readerFunc(func(p []byte) (int, error) {
		started()
		return out.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// ReadFile returns the content of a file that a user has named. It may be of any type,
// as the pipe of a process substitution or a fifo, whose writer it waits for. Errors
// name the path.
func ReadFile(ctx context.Context, path string, limit int64) ([]byte, error) {
	return await(ctx, func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readFile(ctx, f, path, limit)
	})
}

// ReadRegular returns the content of the regular file called name in root. Links in
// root are followed as long as they stay in it; whatever else is no regular file is
// refused without being read. Errors name the path in root.
func ReadRegular(ctx context.Context, root *os.Root, name string, limit int64) ([]byte, error) {
	return await(ctx, func() ([]byte, error) {
		// A fifo is opened without waiting for its writer.
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			return nil, explain(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is %s, not a regular file", kind(info.Mode()))}
		}
		return readFile(ctx, f, name, limit)
	})
}

func readFile(ctx context.Context, f *os.File, path string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(Reader(ctx, f, limit))
	if tooLarge, ok := errors.AsType[*LimitError](err); ok {
		return nil, &fs.PathError{Op: "read", Path: path, Err: tooLarge}
	}
	return data, err
}

// explain says of a path that leads out of its root what is the matter.
func explain(err error) error {
	e, ok := errors.AsType[*fs.PathError](err)
	if !ok || e.Err.Error() != "path escapes from parent" { // package os has no value for it
		return err
	}
	return &fs.PathError{Op: e.Op, Path: e.Path, Err: errors.New("it is a link that leads out of its directory")}
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a fifo"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// await calls read in a goroutine of its own, which it leaves behind if ctx ends first.
func await(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := read()
		done <- result{data, err}
	}()
	select {
	case r := <-done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
