package filecopy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// rangeSize is how much one copy_file_range may take: on file systems that
	// can't share blocks it copies without noticing a cancelled context.
	rangeSize = 64 << 20
	// smallFile is the size up to which a read and a write are faster.
	smallFile = 128 << 10
)

// contentCopier copies the bytes of files. It is safe for concurrent use.
type contentCopier struct {
	// noRange says that the two file systems can't copy between themselves.
	noRange atomic.Bool
	buffers buffers
}

// copy copies size bytes from src to the empty file dst; holes stay holes.
// holes says that src may have some.
func (c *contentCopier) copy(ctx context.Context, dst, src int, size int64, holes bool) error {
	if size == 0 {
		return nil
	}
	if !holes {
		return c.span(ctx, dst, src, 0, size)
	}
	for at := int64(0); at < size; {
		start, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return c.span(ctx, dst, src, at, size)
		}
		end, err := unix.Seek(src, start, unix.SEEK_HOLE)
		if err != nil {
			end = size
		}
		end = min(end, size)
		if start >= end {
			break
		}
		if err := c.span(ctx, dst, src, start, end); err != nil {
			return err
		}
		at = end
	}
	if err := retry(func() error { return unix.Ftruncate(dst, size) }); err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	return nil
}

// span copies the bytes from start to end.
func (c *contentCopier) span(ctx context.Context, dst, src int, start, end int64) error {
	if end-start > smallFile && !c.noRange.Load() {
		var err error
		if start, err = c.ranges(ctx, dst, src, start, end); err != nil || start == end {
			return err
		}
	}
	buf := c.buffers.take()
	defer c.buffers.put(buf)
	for start < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := (*buf)[:min(end-start, bufferSize)]
		n, err := readAt(src, part, start)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("%w (it has become shorter)", ErrChanged)
		}
		if err := writeAt(dst, part[:n], start); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		start += int64(n)
	}
	return nil
}

// ranges lets the kernel copy, sharing blocks where it can, and returns how far
// it came: not to the end where these file systems don't support it.
func (c *contentCopier) ranges(ctx context.Context, dst, src int, start, end int64) (int64, error) {
	for start < end {
		if err := ctx.Err(); err != nil {
			return start, err
		}
		from, to, n := start, start, 0
		err := retry(func() (err error) {
			n, err = unix.CopyFileRange(src, &from, dst, &to, int(min(end-start, rangeSize)), 0)
			return err
		})
		switch {
		case err == nil && n > 0:
			start += int64(n)
		case err == nil, errors.Is(err, unix.EIO):
			return start, nil // the reading and writing loop tells what is wrong
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
			return start, fmt.Errorf("copy: %w", err)
		default:
			c.noRange.Store(true)
			return start, nil
		}
	}
	return start, nil
}

// readAt fills buf from the offset at as far as the file goes.
func readAt(fd int, buf []byte, at int64) (int, error) {
	done := 0
	for done < len(buf) {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Pread(fd, buf[done:], at+int64(done))
			return err
		})
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// writeAt writes all of buf at the offset at.
func writeAt(fd int, buf []byte, at int64) error {
	for len(buf) > 0 {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Pwrite(fd, buf, at)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.EIO
		}
		buf, at = buf[n:], at+int64(n)
	}
	return nil
}

// hashBlock is the unit in which content is hashed, in bytes. Blocks of zeros
// are counted, not hashed, so that the holes of a sparse file needn't be read;
// whether the zeros of a file are holes makes no difference to its sum.
const hashBlock = 64 << 10

// bufferSize is the size of the buffers through which files are read: a whole
// number of hash blocks.
const bufferSize = 4 * hashBlock

// buffers keeps the buffers that the workers of one operation take turns with.
type buffers struct{ pool sync.Pool }

func (b *buffers) take() *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, bufferSize)
	return &buf
}

func (b *buffers) put(buf *[]byte) { b.pool.Put(buf) }
