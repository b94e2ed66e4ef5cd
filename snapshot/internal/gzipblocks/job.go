package gzipblocks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/flate"
)

// A job is a block to compress.
type job struct {
	dictionary, block []byte

	done       chan struct{} // closed when what follows is set
	key        Key
	compressed []byte
	err        error
}

// run compresses the block, unless it is known.
func (j *job) run(o Options, known func(Key) []byte) {
	j.key = j.name(o)
	if known != nil {
		if j.compressed = known(j.key); j.compressed != nil {
			return
		}
	}
	var out bytes.Buffer
	out.Grow(len(j.block) / 2)
	j.err = j.compress(&out, o.Level)
	j.compressed = out.Bytes()
}

// name returns the key of the block.
func (j *job) name(o Options) (key Key) {
	h := sha256.New()
	head := binary.BigEndian.AppendUint32([]byte(o.Salt), uint32(int32(o.Level)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(j.dictionary)))
	for _, part := range [][]byte{head, j.dictionary, j.block} {
		_, _ = h.Write(part)
	}
	h.Sum(key[:0])
	return key
}

// compressors are unused ones, by level from flate.HuffmanOnly on.
var compressors [flate.BestCompression - flate.HuffmanOnly + 1]sync.Pool

func checkLevel(level int) error {
	if level < flate.HuffmanOnly || level > flate.BestCompression {
		return fmt.Errorf("compress: gzip has no level %d", level)
	}
	return nil
}

// compress writes the compressed block, which ends at the end of a byte.
func (j *job) compress(out *bytes.Buffer, level int) error {
	pool := &compressors[level-flate.HuffmanOnly]
	z, ok := pool.Get().(*flate.Writer)
	if ok {
		z.ResetDict(out, j.dictionary)
	} else {
		var err error
		if z, err = flate.NewWriterDict(out, level, j.dictionary); err != nil {
			return err
		}
	}
	_, err := z.Write(j.block)
	if err = errors.Join(err, z.Flush()); err != nil {
		return err
	}
	pool.Put(z)
	return nil
}
