package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// Regular is an open regular file.
type Regular struct {
	Attrs

	Size   int64 // of its content, in bytes
	fd     int
	sparse bool // has holes
}

// OpenRegular opens the regular file at the path below the directory dir, without
// following a link. The caller closes it.
func OpenRegular(dir int, path string, keeper owners.Keeper) (*Regular, error) {
	f := &Regular{}
	err := descent.Beneath(dir, path, func(dir int, rest string) (err error) {
		f.fd, err = descent.Open(dir, rest, unix.O_NONBLOCK) // should it have become a fifo
		return err
	})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := keeper.Fstat(f.fd, &st); err != nil {
		return nil, errors.Join(os.NewSyscallError("fstat", err), f.Close())
	}
	f.Attrs, f.Size, f.sparse = AttrsOf(&st), st.Size, st.Blocks*512 < st.Size
	if f.Xattrs, err = readXattrs(f.fd, keeper, st.Mode); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close closes the file.
func (f *Regular) Close() error { return unix.Close(f.fd) }

var (
	errShrank = errors.New("file became shorter while it was read")
	errGrew   = errors.New("file became longer while it was read")
)

// CopyTo writes what the file holds to w by way of buf, holes as zeros without reading
// them.
func (f *Regular) CopyTo(ctx context.Context, w io.Writer, buf []byte) error {
	for at := int64(0); at < f.Size; {
		data, end := at, f.Size
		if f.sparse {
			var err error
			if data, end, err = f.next(at); err != nil {
				return err
			}
		}
		if err := writeZeros(ctx, w, buf, data-at); err != nil {
			return err
		}
		if err := f.copyData(ctx, w, buf, data, end); err != nil {
			return err
		}
		at = end
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	switch {
	case st.Size > f.Size:
		return errGrew
	case st.Size < f.Size:
		return errShrank
	}
	return nil
}

// next returns where the first data from at begins and ends.
func (f *Regular) next(at int64) (data, end int64, err error) {
	data, err = unix.Seek(f.fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return f.Size, f.Size, nil
	}
	if errors.Is(err, unix.EINVAL) { // a file system that doesn't know of holes
		return at, f.Size, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("seek: %w", err)
	}
	end, err = unix.Seek(f.fd, data, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seek: %w", err)
	}
	return min(data, f.Size), min(end, f.Size), nil
}

// copyData writes the bytes from at to end.
func (f *Regular) copyData(ctx context.Context, w io.Writer, buf []byte, at, end int64) error {
	for at < end {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := unix.Pread(f.fd, buf[:min(int64(len(buf)), end-at)], at)
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

// Fill writes the size bytes of r to the new file fd, by way of buf, with
// holes where all of that is zero.
func Fill(ctx context.Context, fd int, size int64, r io.Reader, buf []byte) error {
	hole := false
	for left := size; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read content: %w", err)
		}
		left -= int64(len(b))
		if len(b) == len(buf) {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if hole = isZero(b); hole {
				if _, err := unix.Seek(fd, int64(len(b)), unix.SEEK_CUR); err != nil {
					return fmt.Errorf("seek: %w", err)
				}
				continue
			}
		}
		hole = false
		if err := writeAll(fd, b); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if hole {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("truncate: %w", err)
		}
	}
	return nil
}

// isZero reports whether b, of a multiple of 512 bytes, holds zeros alone.
func isZero(b []byte) bool {
	var z [512]byte
	for ; len(b) > 0; b = b[len(z):] {
		if !bytes.Equal(b[:len(z)], z[:]) {
			return false
		}
	}
	return true
}

// Same reports whether two regular files hold the same and have the same extended
// attributes. What is a hole in both isn't read. It reads by way of buf.
func Same(x, y *Regular, buf []byte) (bool, error) {
	if x.Size != y.Size || !maps.Equal(x.Xattrs, y.Xattrs) {
		return false, nil
	}
	for at := int64(0); at < x.Size; {
		end := x.Size
		if x.sparse && y.sparse {
			first, firstEnd, err := x.next(at)
			if err != nil {
				return false, err
			}
			second, secondEnd, err := y.next(at)
			if err != nil {
				return false, err
			}
			at = min(first, second)
			if end = min(firstEnd, secondEnd); end <= at { // one is far behind the other
				end = max(first, second)
			}
		}
		same, err := sameSpan(x.fd, y.fd, buf, at, end)
		if !same || err != nil {
			return false, err
		}
		at = end
	}
	return true, nil
}

// sameSpan reports whether two open files hold the same from at to end.
func sameSpan(a, b int, buf []byte, at, end int64) (bool, error) {
	half := len(buf) / 2
	for at < end {
		want := int(min(int64(half), end-at))
		n, err := unix.Pread(a, buf[:want], at)
		if err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		m := 0
		for m < n {
			k, err := unix.Pread(b, buf[half+m:half+n], at+int64(m))
			if err != nil {
				return false, fmt.Errorf("read: %w", err)
			}
			if k == 0 {
				return false, nil
			}
			m += k
		}
		if n == 0 {
			return false, errShrank
		}
		if !bytes.Equal(buf[:n], buf[half:half+n]) {
			return false, nil
		}
		at += int64(n)
	}
	return true, nil
}
