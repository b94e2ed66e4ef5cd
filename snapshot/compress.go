package snapshot

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/bobbuild/bob/snapshot/internal/gzipblocks"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Packing is the version of all that decides about the bytes of a layer and that
// [Compression.String] doesn't name: the form of the tar, the default levels and the
// size of the pieces. It changes with any of them; whoever remembers blobs has it in
// their names.
const Packing = "2"

// A Compression is how the blob of a layer is compressed. The zero value is gzip
// at its default level.
type Compression struct {
	Method Method
	// Level is from 0, the fastest, to [Method.Levels]; nil is the method's
	// default.
	Level *int
}

// A Method is a way to compress layers, by its name in BuildKit. "" is Gzip.
type Method string

// The methods that there are.
const (
	Gzip         Method = "gzip"
	Zstd         Method = "zstd"
	Uncompressed Method = "uncompressed"
)

// Levels returns the highest level of m, 0 where there are none.
func (m Method) Levels() int {
	switch m {
	case Gzip, "":
		return flate.BestCompression
	case Zstd:
		return maxZstdLevel
	case Uncompressed:
	}
	return 0
}

// maxZstdLevel is the highest level of the zstd tool. The encoder has four levels of its own
// and takes the nearest.
const maxZstdLevel = 22

// String names c, as "gzip" or "zstd-19": equal names make equal blobs
// in one version of [Packing].
func (c Compression) String() string {
	name := string(c.Method)
	if name == "" {
		name = string(Gzip)
	}
	if c.Level != nil {
		name += "-" + strconv.Itoa(*c.Level)
	}
	return name
}

// newWriter returns a writer that compresses what is written to it into w. The
// same bytes always make the same blob, on every machine. The caller closes it to
// end the blob; that doesn't close w. known returns the compressed bytes of blocks,
// see [gzipblocks.Options].
func (c Compression) newWriter(w io.Writer, known func(gzipblocks.Key) []byte) (io.WriteCloser, error) {
	switch c.Method {
	case Gzip, "":
		level := flate.DefaultCompression
		if c.Level != nil {
			level = *c.Level
		}
		return gzipblocks.NewWriter(w, gzipblocks.Options{Level: level, Workers: workers(packMemory), Salt: Packing, Known: known})
	case Zstd:
		level := zstd.SpeedDefault
		if c.Level != nil {
			level = zstd.EncoderLevelFromZstd(*c.Level)
		}
		n := workers(zstdMemory)
		return zstd.NewWriter(w, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(n), zstd.WithLowerEncoderMem(n == 1))
	case Uncompressed:
		return asItIs{w}, nil
	}
	return nil, fmt.Errorf("compress: no method is called %q", c.Method)
}

// packMemory and zstdMemory are what another piece that is compressed at once takes, in
// bytes.
const (
	packMemory = 6 << 20
	zstdMemory = 32 << 20
)

// workers returns how many pieces of a layer may be in work at once, each of which takes
// that much memory: as many as there are processors and one that is read, if that leaves
// half of the memory that this process may use (see [debug.SetMemoryLimit]).
func workers(memory int64) int {
	return int(max(1, min(int64(runtime.NumCPU()+1), debug.SetMemoryLimit(-1)/2/memory)))
}

// asItIs is the writer that compresses nothing.
type asItIs struct{ io.Writer }

func (asItIs) Close() error { return nil }
