package snapshot_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
)

// patterned returns n bytes that compress, but not to nothing.
func patterned(n int) []byte {
	source := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(source.IntN(1 + i%31))
	}
	return data
}

// packed writes data to a compressor in pieces of the given size.
func packed(t *testing.T, c snapshot.Compression, data []byte, piece int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := snapshot.NewWriter(c, &out)
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Each method at each of its levels gives back what went in, in the form that
// its first bytes tell.
func TestCompressionMethods(t *testing.T) {
	t.Parallel()
	data := patterned(300 << 10)
	magic := map[snapshot.Method][]byte{
		"": {0x1f, 0x8b}, snapshot.Gzip: {0x1f, 0x8b}, snapshot.Zstd: {0x28, 0xb5, 0x2f, 0xfd},
		snapshot.Uncompressed: data[:4],
	}
	for method, first := range magic {
		levels := []*int{nil}
		for n := range method.Levels() + 1 {
			levels = append(levels, &n)
		}
		for _, level := range levels {
			c := snapshot.Compression{Method: method, Level: level}
			blob := packed(t, c, data, len(data))
			if !bytes.HasPrefix(blob, first) {
				t.Errorf("%s begins with %x, want %x", c, blob[:4], first)
			}
			r, err := bounded.Decompress(bytes.NewReader(blob))
			if err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(back, data) {
				t.Errorf("%s: %v, %d bytes came back of %d", c, err, len(back), len(data))
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A blob depends neither on how its bytes arrive nor on the number of processors, nor on
// how much memory there is.
func TestCompressionIsTheSameEverywhere(t *testing.T) { //nolint:paralleltest // sets GOMAXPROCS
	data := patterned(3 << 20)
	for _, method := range []snapshot.Method{snapshot.Gzip, snapshot.Zstd} {
		c := snapshot.Compression{Method: method}
		want := packed(t, c, data, len(data))
		for _, processors := range []int{1, 4} {
			before := runtime.GOMAXPROCS(processors)
			got := packed(t, c, data, 10_007)
			runtime.GOMAXPROCS(before)
			if !bytes.Equal(got, want) {
				t.Errorf("%s with %d processors: other bytes", method, processors)
			}
		}
		before := debug.SetMemoryLimit(16 << 20)
		got := packed(t, c, data, 10_007)
		debug.SetMemoryLimit(before)
		if !bytes.Equal(got, want) {
			t.Errorf("%s in little memory: other bytes", method)
		}
	}
}

// TestPackingStable pins what remembered blobs are taken for: a change makes another
// [snapshot.Packing].
func TestPackingStable(t *testing.T) {
	t.Parallel()
	want := map[snapshot.Method]string{
		snapshot.Gzip:         "sha256:d3fbd6b7e5ccd7fee9c55efe5cfd3be75989e046b2042ca2a6e7a5587c716351",
		snapshot.Zstd:         "sha256:95e6f172291426ca3851a69ad0dba8811ba292118cd07ea266657783a57a6a35",
		snapshot.Uncompressed: "sha256:bce11eebd20506f3dd4983b3efc5dc61ccd727b6126e9de5d9dee3d9a6f76a67",
	}
	if snapshot.Packing != "2" {
		t.Fatalf("write down the digests of packing %s", snapshot.Packing)
	}
	data := patterned(3 << 20)
	for method, want := range want {
		if got := digest.FromBytes(packed(t, snapshot.Compression{Method: method}, data, 1<<16)).String(); got != want {
			t.Errorf("%s makes %s, in packing %s it is %s", method, got, snapshot.Packing, want)
		}
	}
}

func TestUnknownCompression(t *testing.T) {
	t.Parallel()
	if _, err := snapshot.NewWriter(snapshot.Compression{Method: "lz4"}, io.Discard); err == nil {
		t.Error("lz4 was taken")
	}
}
