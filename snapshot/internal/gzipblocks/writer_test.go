package gzipblocks_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/gzipblocks"
	"github.com/klauspost/compress/flate"
)

// text returns n bytes of words, the same each time for one seed.
func text(n int, seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%x ", random.IntN(5000))
	}
	return b.Bytes()[:n]
}

// known keeps the blocks of streams.
type known struct {
	mu     sync.Mutex
	blocks map[gzipblocks.Key][]byte
	hits   int
}

func (k *known) get(key gzipblocks.Key) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.blocks[key]
	if b != nil {
		k.hits++
	}
	return b
}

// add keeps the blocks of a stream.
func (k *known) add(stream []byte, blocks []gzipblocks.Block) {
	if k.blocks == nil {
		k.blocks = make(map[gzipblocks.Key][]byte)
	}
	at := gzipblocks.HeaderSize
	for _, b := range blocks {
		k.blocks[b.Key] = stream[at : at+b.Size]
		at += b.Size
	}
}

// compress returns the stream of content, which is written in pieces of the size, and the
// stream's blocks.
func compress(t testing.TB, content []byte, o gzipblocks.Options, piece int) ([]byte, []gzipblocks.Block) {
	t.Helper()
	var out bytes.Buffer
	z, err := gzipblocks.NewWriter(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(content, piece) {
		if _, err := z.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), z.Blocks()
}

func decompress(t *testing.T, stream []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestSameBytes compresses in many ways and wants one result, which is gzip.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	random := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	for name, content := range map[string][]byte{
		"nothing": nil, "a byte": {1}, "small": text(10_000, 1), "large": text(9<<20, 2), "zeros": make([]byte, 7<<20), "random": random,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, level := range []int{flate.HuffmanOnly, flate.DefaultCompression, 0, 1, 9} {
				want, blocks := compress(t, content, gzipblocks.Options{Level: level, Workers: 1}, max(1, len(content)))
				if got := decompress(t, want); !bytes.Equal(got, content) {
					t.Fatalf("level %d: %d bytes came back of %d", level, len(got), len(content))
				}
				var k known
				k.add(want, blocks)
				for _, o := range []gzipblocks.Options{
					{Level: level, Workers: 5}, {Level: level, Workers: 0, Known: k.get}, {Level: level, Workers: 3, Known: k.get},
				} {
					if got, _ := compress(t, content, o, 300_007); !bytes.Equal(got, want) {
						t.Errorf("level %d, %+v: another stream", level, o)
					}
				}
				if len(blocks) > 1 && k.hits != 2*len(blocks) {
					t.Errorf("level %d: of %d blocks %d were known", level, 2*len(blocks), k.hits)
				}
			}
		})
	}
}

// TestEdits compresses a stream that was changed in places, with what is known of the one
// before and without.
func TestEdits(t *testing.T) {
	t.Parallel()
	before := text(24<<20, 3)
	var k known
	stream, blocks := compress(t, before, gzipblocks.Options{Level: flate.DefaultCompression, Workers: 4}, 1<<20)
	k.add(stream, blocks)
	for name, after := range map[string][]byte{
		"a byte changed": slices.Concat(before[:9<<20], []byte{0}, before[9<<20+1:]),
		"bytes inserted": slices.Concat(before[:9<<20], []byte("inserted"), before[9<<20:]),
		"bytes deleted":  slices.Concat(before[:9<<20], before[9<<20+777:]),
		"more behind":    slices.Concat(before, []byte("behind")),
		"more in front":  slices.Concat([]byte("in front"), before),
	} {
		want, blocks := compress(t, after, gzipblocks.Options{Level: flate.DefaultCompression, Workers: 4}, 1<<20)
		k.hits = 0
		got, _ := compress(t, after, gzipblocks.Options{Level: flate.DefaultCompression, Workers: 4, Known: k.get}, 1<<20)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: another stream with what is known", name)
		}
		if anew := len(blocks) - k.hits; anew > 6 {
			t.Errorf("%s: of %d blocks %d were compressed anew", name, len(blocks), anew)
		}
	}
	// Another level, or salt, makes other bytes.
	for _, o := range []gzipblocks.Options{{Level: 1, Known: k.get}, {Level: flate.DefaultCompression, Salt: "x", Known: k.get}} {
		k.hits = 0
		if compress(t, before, o, 1<<20); k.hits > 0 {
			t.Errorf("%+v: %d blocks of another kind were used", o, k.hits)
		}
	}
}

// brokenWriter fails after some bytes.
type brokenWriter struct{ left int }

var errBroken = errors.New("broken")

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestBrokenWriter(t *testing.T) {
	t.Parallel()
	for _, left := range []int{0, 20, 1 << 20} {
		z, err := gzipblocks.NewWriter(&brokenWriter{left}, gzipblocks.Options{Level: 1, Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		content := text(12<<20, 4)
		_, err = z.Write(content)
		if err == nil {
			_, err = z.Write(content)
		}
		if err = errors.Join(err, z.Close()); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: %v", left, err)
		}
		if _, err := z.Write(content); err == nil {
			t.Error("a closed writer takes bytes")
		}
	}
	if _, err := gzipblocks.NewWriter(io.Discard, gzipblocks.Options{Level: 10}); err == nil {
		t.Error("level 10 is taken")
	}
}

// FuzzWriter compares streams that are written, and known, in different ways.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("some bytes"), uint16(3000), uint16(7))
	f.Fuzz(func(t *testing.T, seed []byte, repeat, piece uint16) {
		var content []byte
		for i := range int(repeat) % 4000 {
			content = append(append(content, seed...), byte(i), byte(i>>8))
			if len(content) > 6<<20 {
				break
			}
		}
		want, blocks := compress(t, content, gzipblocks.Options{Level: 1, Workers: 1}, max(1, len(content)))
		if got := decompress(t, want); !bytes.Equal(got, content) {
			t.Fatal("other bytes came back")
		}
		var k known
		k.add(want, blocks)
		if got, _ := compress(t, content, gzipblocks.Options{Level: 1, Workers: 3, Known: k.get}, int(piece)+1); !bytes.Equal(got, want) {
			t.Error("another stream")
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	content := text(64<<20, 5)
	var k known
	stream, blocks := compress(b, content, gzipblocks.Options{Level: flate.DefaultCompression, Workers: 3}, 1<<20)
	k.add(stream, blocks)
	for name, known := range map[string]func(gzipblocks.Key) []byte{"new": nil, "known": k.get} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				compress(b, content, gzipblocks.Options{Level: flate.DefaultCompression, Workers: 3, Known: known}, 256<<10)
			}
		})
	}
}
