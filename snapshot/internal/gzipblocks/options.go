// Package gzipblocks compresses a stream by gzip (RFC 1952) in blocks that end where the
// content says so. A block is compressed by itself, but for the 32 KiB before it, which are
// its dictionary. So blocks are compressed side by side, and a block that an earlier stream
// had, with the same bytes before it, needs not be compressed again: the bytes are the same.
package gzipblocks

import "crypto/sha256"

// dictionarySize is how far matches reach back (RFC 1951).
const dictionarySize = 32 << 10

// HeaderSize is the size of what comes before the first block, in bytes.
const HeaderSize = 10

// A Key names the compressed bytes of a block.
type Key [sha256.Size]byte

// A Block is a part of a compressed stream. The first comes behind the header, and each
// behind the one before.
type Block struct {
	Key  Key
	Size int // compressed, in bytes
}

// Options say how a stream is compressed.
type Options struct {
	// Level is one of package flate.
	Level int
	// Workers is how many blocks may be in work at once.
	Workers int
	// Salt is part of the keys of blocks. It changes whenever the compressed bytes of the
	// same block do.
	Salt string
	// Known returns the compressed bytes of a block, or nil if they aren't known. It is
	// called concurrently. It is not called for a stream of a single block.
	Known func(Key) []byte
}
