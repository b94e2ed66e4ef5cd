package bounded_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func compressed(t *testing.T, text string, compressor func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compressor(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzOf(t *testing.T, text string) []byte {
	t.Helper()
	return compressed(t, text, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
}

// withDictionary returns the xz file with another dictionary size (format 1.0.4, 5.3.1).
func withDictionary(t *testing.T, file []byte, bits byte) []byte {
	t.Helper()
	file = bytes.Clone(file)
	header := file[12:] // behind that of the stream
	header = header[:(int(header[0])+1)*4]
	if header[2] != 0x21 || header[3] != 1 {
		t.Fatalf("no LZMA2 in % x", header)
	}
	header[4] = bits
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	return file
}

func TestDecompress(t *testing.T) {
	t.Parallel()
	const text = "some text"
	one := xzOf(t, text)
	const largest, gib, fits = 40, 36, 30 // 4 GiB - 1, 1 GiB, 128 MiB
	for _, tt := range []struct {
		name string
		file []byte
		want string // text, or part of the error
	}{
		{"plain", []byte(text), text},
		{"empty", nil, ""},
		{"gzip", compressed(t, text, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }), text},
		{"zstd", compressed(t, text, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }), text},
		{"xz", one, text},
		{"xz of two streams", bytes.Join([][]byte{one, one}, nil), text + text},
		{"xz with padding", bytes.Join([][]byte{one, {0, 0, 0, 0}, one}, nil), text + text},
		{"xz with the largest dictionary that fits", withDictionary(t, one, fits), text},
		{"xz with a large dictionary", withDictionary(t, one, gib), "takes more than 128 MiB of memory"},
		{"xz with the largest dictionary", withDictionary(t, one, largest), "takes more than 128 MiB of memory"},
		{"xz with a large dictionary later", bytes.Join([][]byte{one, withDictionary(t, one, largest)}, nil), "takes more than 128 MiB of memory"},
		{"xz damaged", one[:len(one)-20], "truncated or corrupt"},
		// A frame with a window of 256 MiB and one empty block (RFC 8878, 3.1.1).
		{"zstd with a large window", []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 18 << 3, 1, 0, 0}, "takes more than 128 MiB of memory"},
		{"zstd with the largest window", []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 1, 0, 0}, "takes more than 128 MiB of memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := bounded.Decompress(bytes.NewReader(tt.file))
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
			}
			if err == nil {
				err = r.Close()
			}
			if err != nil && !strings.Contains(err.Error(), tt.want) || err == nil && string(got) != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestDictionaryIsNotFilled decompresses what would fill 4 GiB of memory.
func TestDictionaryIsNotFilled(t *testing.T) {
	file := withDictionary(t, xzOf(t, strings.Repeat("0123456789abcdef", 1<<18)), 40)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := bounded.Decompress(bytes.NewReader(file))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err == nil {
		t.Error("it was decompressed")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
