package gzipblocks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A Writer compresses what is written to it. The same bytes always make the same stream,
// however they are written, and whatever is known. It is for one goroutine.
type Writer struct {
	o   Options
	out io.Writer
	cutter
	block []byte // so far
	tail  []byte // the dictionary of the block
	crc   uint32
	size  uint32

	queue  chan *job // in order, to be written
	slots  chan struct{}
	free   chan []byte // blocks that are compressed
	ended  chan struct{}
	blocks []Block // of ended
	err    error   // of ended
	failed chan struct{}
	closed bool
}

// NewWriter returns a Writer to w. The caller closes it, which doesn't close w.
func NewWriter(w io.Writer, o Options) (*Writer, error) {
	if err := checkLevel(o.Level); err != nil {
		return nil, err
	}
	o.Workers = max(1, o.Workers)
	z := &Writer{
		o: o, out: w, cutter: newCutter(),
		queue: make(chan *job, o.Workers), slots: make(chan struct{}, o.Workers), free: make(chan []byte, o.Workers),
		ended: make(chan struct{}), failed: make(chan struct{}),
	}
	go z.write()
	return z, nil
}

// Write compresses p.
func (z *Writer) Write(p []byte) (int, error) {
	if z.closed {
		return 0, errClosed
	}
	n := len(p)
	z.crc = crc32.Update(z.crc, crc32.IEEETable, p)
	z.size += uint32(n) // modulo 2^32 (RFC 1952)
	for len(p) > 0 {
		k, cut := z.next(p)
		z.block = append(z.block, p[:k]...)
		p = p[k:]
		if cut {
			if err := z.dispatch(z.o.Known); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

var errClosed = errors.New("writer is closed")

// dispatch has the block compressed, and begins another one.
func (z *Writer) dispatch(known func(Key) []byte) error {
	select {
	case z.slots <- struct{}{}:
	case <-z.failed:
		return z.err
	}
	j := &job{dictionary: z.tail, block: z.block, done: make(chan struct{})}
	// The next block takes this one's end, as it is now, for its dictionary.
	z.tail = append([]byte(nil), z.block[max(0, len(z.block)-dictionarySize):]...)
	if short := dictionarySize - len(z.tail); short > 0 {
		z.tail = append(append([]byte(nil), j.dictionary[max(0, len(j.dictionary)-short):]...), z.tail...)
	}
	select {
	case z.block = <-z.free:
		z.block = z.block[:0]
	default:
		z.block = nil
	}
	go func() {
		defer close(j.done)
		j.run(z.o, known)
		select {
		case z.free <- j.block:
		default:
		}
		<-z.slots
	}()
	select {
	case z.queue <- j:
		return nil
	case <-z.failed:
		return z.err
	}
}

// write writes the blocks in their order.
func (z *Writer) write() {
	defer close(z.ended)
	fail := func(err error) {
		z.err = err
		close(z.failed)
		for range z.queue { // until the last
		}
	}
	if _, err := z.out.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}); err != nil {
		fail(err)
		return
	}
	for j := range z.queue {
		<-j.done
		if j.err != nil {
			fail(j.err)
			return
		}
		if _, err := z.out.Write(j.compressed); err != nil {
			fail(err)
			return
		}
		z.blocks = append(z.blocks, Block{j.key, len(j.compressed)})
	}
}

// Close ends the stream.
func (z *Writer) Close() error {
	if z.closed {
		return nil
	}
	z.closed = true
	var err error
	if len(z.block) > 0 {
		known := z.o.Known
		if z.tail == nil { // the only one
			known = nil
		}
		err = z.dispatch(known)
	}
	close(z.queue)
	<-z.ended
	if err = errors.Join(err, z.err); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	end := []byte{0x01, 0x00, 0x00, 0xff, 0xff} // a last block that is stored and empty
	end = binary.LittleEndian.AppendUint32(end, z.crc)
	end = binary.LittleEndian.AppendUint32(end, z.size)
	_, err = z.out.Write(end)
	return err
}

// Blocks returns the blocks of the stream, once it is closed.
func (z *Writer) Blocks() []Block { return z.blocks }
