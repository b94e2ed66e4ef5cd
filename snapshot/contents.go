package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// contents is what a regular file holds.
type contents struct {
	fd     int
	size   int64
	sparse bool // has holes
}

var (
	errShrank = errors.New("file became shorter while it was read")
	errGrew   = errors.New("file became longer while it was read")
)

// copyTo writes the contents to w by way of buf, holes as zeros without reading
// them.
func (c contents) copyTo(ctx context.Context, w io.Writer, buf []byte) error {
	for at := int64(0); at < c.size; {
		data, end := at, c.size
		if c.sparse {
			var err error
			if data, end, err = c.next(at); err != nil {
				return err
			}
		}
		if err := writeZeros(ctx, w, buf, data-at); err != nil {
			return err
		}
		if err := c.copyData(ctx, w, buf, data, end); err != nil {
			return err
		}
		at = end
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Size > c.size:
		return errGrew
	case st.Size < c.size:
		return errShrank
	}
	return nil
}

// next returns where the first data from at begins and ends.
func (c contents) next(at int64) (data, end int64, err error) {
	data, err = unix.Seek(c.fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return c.size, c.size, nil
	}
	if errors.Is(err, unix.EINVAL) { // a file system that doesn't know of holes
		return at, c.size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("seek: %w", err)
	}
	end, err = unix.Seek(c.fd, data, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seek: %w", err)
	}
	return min(data, c.size), min(end, c.size), nil
}

// copyData writes the bytes from at to end.
func (c contents) copyData(ctx context.Context, w io.Writer, buf []byte, at, end int64) error {
	for at < end {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Pread(c.fd, buf[:min(int64(len(buf)), end-at)], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return errShrank
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// writeZeros writes n zero bytes to w by way of buf.
func writeZeros(ctx context.Context, w io.Writer, buf []byte, n int64) error {
	if n == 0 {
		return nil
	}
	clear(buf)
	for n > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := w.Write(buf[:min(int64(len(buf)), n)])
		if err != nil {
			return err
		}
		n -= int64(m)
	}
	return nil
}
