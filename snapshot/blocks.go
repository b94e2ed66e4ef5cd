package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/gzipblocks"
	"github.com/opencontainers/go-digest"
)

// blocksKind is the kind of the one record that says in which blobs compressed blocks are.
const blocksKind = "blocks-1"

var blocksKey = digest.FromString("blocks")

// A Compressor compresses a layer. It is for one goroutine.
type Compressor struct {
	io.WriteCloser

	store  *Store
	blocks *gzipblocks.Writer // nil for what isn't gzip
	known  *knownBlocks
}

// NewCompressor returns what compresses a layer into w. The same bytes always make the same
// blob, on every machine. Blocks of content that the store has compressed for other layers
// aren't compressed again, but read from there until ctx ends. The caller closes the
// Compressor to end the blob, which doesn't close w.
func (s *Store) NewCompressor(ctx context.Context, c Compression, w io.Writer) (*Compressor, error) {
	known := &knownBlocks{ctx: ctx, store: s, files: make(map[digest.Digest]*os.File)}
	zw, err := c.newWriter(w, known.get)
	if err != nil {
		return nil, err
	}
	blocks, _ := zw.(*gzipblocks.Writer)
	return &Compressor{WriteCloser: zw, store: s, blocks: blocks, known: known}, nil
}

// Close ends the layer.
func (z *Compressor) Close() error { return errors.Join(z.WriteCloser.Close(), z.known.close()) }

// Remember notes that the store has what was compressed as a blob, for later layers. The
// Compressor is closed.
func (z *Compressor) Remember(blob digest.Digest) error {
	if z.blocks == nil || len(z.blocks.Blocks()) < 2 {
		return nil // there is nothing to gain
	}
	// What another process notes at the same time may be lost. It costs time, later.
	index := z.store.blocksIndex().Add(blob, z.blocks.Blocks())
	if err := z.store.PutRecord(blocksKind, blocksKey, index.Encode()); err != nil {
		return fmt.Errorf("note blocks of blob %s: %w", blob, err)
	}
	return nil
}

// blocksIndex reads in which blobs compressed blocks are.
func (s *Store) blocksIndex() *gzipblocks.Index {
	data, err := s.Record(blocksKind, blocksKey)
	if err != nil {
		data = nil
	}
	return gzipblocks.ReadIndex(data)
}

// knownBlocks finds compressed blocks in the blobs of a store. It may be used concurrently.
type knownBlocks struct {
	ctx   context.Context //nolint:containedctx // of one layer, which the value stands for
	store *Store
	index sync.Once
	in    *gzipblocks.Index

	mu    sync.Mutex
	files map[digest.Digest]*os.File // nil where a blob isn't there or is damaged
}

// get returns the compressed bytes of a block, nil if no blob has them.
func (k *knownBlocks) get(key gzipblocks.Key) []byte {
	k.index.Do(func() { k.in = k.store.blocksIndex() })
	place, found := k.in.Find(key)
	if !found {
		return nil
	}
	f := k.open(place.Blob)
	if f == nil {
		return nil
	}
	block := make([]byte, place.Size)
	if _, err := f.ReadAt(block, place.Offset); err != nil {
		return nil
	}
	return block
}

// open opens a blob, which is read first to see that it is whole.
func (k *knownBlocks) open(blob digest.Digest) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, opened := k.files[blob]
	if !opened {
		var err error
		if f, err = k.store.OpenBlob(k.ctx, blob); err != nil {
			f = nil
		}
		k.files[blob] = f
	}
	return f
}

func (k *knownBlocks) close() (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	k.files = nil
	return err
}
