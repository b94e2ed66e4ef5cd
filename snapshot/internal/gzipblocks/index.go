package gzipblocks

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/opencontainers/go-digest"
)

// maxIndexed is how many blocks an index names, some 8 GiB of content.
const maxIndexed = 8192

// An Index says in which streams blocks are, the newest streams first. It is for one
// goroutine, but for Find.
type Index struct {
	streams []indexed
	places  map[Key]Place
}

// indexed is the blocks of a stream.
type indexed struct {
	blob   digest.Digest // of the stream; SHA-256
	blocks []Block
}

// A Place is where the compressed bytes of a block are.
type Place struct {
	Blob   digest.Digest // the stream
	Offset int64         // in the stream, in bytes
	Size   int           // in bytes
}

// The sizes of what an index is encoded as, in bytes: a stream is its digest and how many
// blocks it has, a block its key and its size. Numbers are big-endian.
const (
	streamSize = len(Key{}) + 4
	blockSize  = len(Key{}) + 4
)

// ReadIndex reads what Encode wrote. Of other data nothing behind the first mistake counts.
func ReadIndex(data []byte) *Index {
	x := &Index{places: make(map[Key]Place)}
	for len(data) >= streamSize {
		s := indexed{blob: digest.NewDigestFromBytes(digest.SHA256, data[:len(Key{})])}
		n := int(binary.BigEndian.Uint32(data[len(Key{}):]))
		if data = data[streamSize:]; n > maxIndexed || len(data) < n*blockSize {
			break
		}
		for b := range slices.Chunk(data[:n*blockSize], blockSize) {
			s.blocks = append(s.blocks, Block{Key(b[:len(Key{})]), int(binary.BigEndian.Uint32(b[len(Key{}):]))})
		}
		data = data[n*blockSize:]
		x.append(s)
	}
	return x
}

// append adds a stream that is older than all.
func (x *Index) append(s indexed) {
	x.streams = append(x.streams, s)
	at := int64(HeaderSize)
	for _, b := range s.blocks {
		if _, found := x.places[b.Key]; !found {
			x.places[b.Key] = Place{s.blob, at, b.Size}
		}
		at += int64(b.Size)
	}
}

// Add returns an index with one more stream, the newest, and without the oldest ones if
// there are too many blocks.
func (x *Index) Add(blob digest.Digest, blocks []Block) *Index {
	added := &Index{places: make(map[Key]Place)}
	left := maxIndexed
	for _, s := range append([]indexed{{blob, blocks}}, x.streams...) {
		if s.blob == blob && len(added.streams) > 0 {
			continue // it was there already
		}
		if left -= len(s.blocks); left < 0 {
			break
		}
		added.append(s)
	}
	return added
}

// Find returns where a block is, if the index has it. It may be called concurrently.
func (x *Index) Find(key Key) (Place, bool) {
	place, found := x.places[key]
	return place, found
}

// Encode returns the index as bytes.
func (x *Index) Encode() []byte {
	var data []byte
	for _, s := range x.streams {
		data, _ = hex.AppendDecode(data, []byte(s.blob.Encoded())) // of a digest, so it is hex
		data = binary.BigEndian.AppendUint32(data, uint32(len(s.blocks)))
		for _, b := range s.blocks {
			data = append(data, b.Key[:]...)
			data = binary.BigEndian.AppendUint32(data, uint32(b.Size))
		}
	}
	return data
}
