package filecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// fileSum encodes the bytes and attributes of one open regular file.
type fileSum struct {
	enc    *encoder
	node   *node
	fd     int
	sparse bool
	owners owners.Keeper
	zeros  uint64 // blocks of zeros not encoded yet
}

// run reads the file through buf, which holds a whole number of blocks, and
// checks that it was all the time as it was selected.
func (f *fileSum) run(ctx context.Context, buf []byte) error {
	size := f.node.size
	f.enc.number(uint64(size))
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if at = f.skipHole(at); at >= size {
			break
		}
		got, err := readAt(f.fd, buf[:min(size-at, int64(len(buf)))], at)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if got == 0 {
			return fmt.Errorf("%w (%d of %d bytes are missing)", ErrChanged, size-at, size)
		}
		f.blocks(buf[:got])
		at += int64(got)
	}
	f.flush()
	if _, err := sameFile(f.fd, f.node); err != nil {
		return err
	}
	a, err := readAttributes(f.fd, f.node.mode, f.owners)
	if err != nil {
		return err
	}
	a.encode(f.enc)
	return nil
}

// skipHole counts the whole blocks of a hole at the offset at, a block's start,
// and returns the offset of the first block with data.
func (f *fileSum) skipHole(at int64) int64 {
	if !f.sparse {
		return at
	}
	data, err := unix.Seek(f.fd, at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		data = (f.node.size + hashBlock - 1) / hashBlock * hashBlock
	} else if err != nil || data < at {
		f.sparse = false
		return at
	}
	blocks := (data - at) / hashBlock
	f.zeros += uint64(blocks)
	return at + blocks*hashBlock
}

// blocks encodes the blocks in data, which starts at a block's start.
func (f *fileSum) blocks(data []byte) {
	for len(data) > 0 {
		block := data[:min(len(data), hashBlock)]
		data = data[len(block):]
		if block[0] == 0 && bytes.Equal(block[1:], block[:len(block)-1]) {
			f.zeros++
			continue
		}
		f.flush()
		f.enc.bytes(block)
	}
}

// flush encodes the blocks of zeros; the length 0, which no block has, marks
// them.
func (f *fileSum) flush() {
	if f.zeros > 0 {
		f.enc.number(0)
		f.enc.number(f.zeros)
		f.zeros = 0
	}
}
