package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/bobbuild/bob/snapshot"
)

// damaged is the error of a reader whose bytes were the wrong ones.
type damaged struct{ again bool }

func (*damaged) Error() string { return "damaged on the way" }

func (e *damaged) Again() bool { return e.again }

// verdict says at the end of what it reads that it was damaged.
type verdict struct {
	io.Reader
	err error
}

func (v *verdict) Read(p []byte) (int, error) {
	n, err := v.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = v.err
	}
	return n, err
}

// TestDamagedLayers has the blob of a layer come damaged in every way, twice or for
// ever: it is read again as long as its reader says so, and its word counts.
func TestDamagedLayers(t *testing.T) {
	t.Parallel()
	content := makeTar(t, file("a", string(bytes.Repeat([]byte("content"), 100_000))))
	right := gzipped(t, content)
	flipped := func(at int) []byte {
		b := bytes.Clone(right)
		b[at] ^= 0x55
		return b
	}
	for name, wrong := range map[string][]byte{
		"first byte": flipped(0), "header": flipped(3), "middle": flipped(len(right) / 2), "checksum": flipped(len(right) - 6),
		"other content": gzipped(t, makeTar(t, file("b", ""))), "short": right[:len(right)/2], "no tar": gzipped(t, []byte("text")), "empty": nil,
	} {
		for _, indexing := range []bool{false, true} {
			for _, times := range []int{2, 5} {
				opened := 0
				l := layerOf(content, right)
				l.Open = func(context.Context) (io.ReadCloser, error) {
					if opened++; opened > times {
						return io.NopCloser(bytes.NewReader(right)), nil
					}
					return io.NopCloser(&verdict{bytes.NewReader(wrong), &damaged{again: opened <= 2}}), nil
				}
				s := openStore(t, t.TempDir())
				if indexing {
					s = openIndexing(t)
				}
				_, err := s.Unpack(t.Context(), []snapshot.Layer{l}, 1)
				var said *damaged
				switch {
				case times == 2 && err != nil:
					t.Errorf("%s, indexing %t: %v", name, indexing, err)
				case times == 5 && !errors.As(err, &said):
					t.Errorf("%s, indexing %t: the error is %v", name, indexing, err)
				case opened != 3:
					t.Errorf("%s, indexing %t: opened %d times", name, indexing, opened)
				}
			}
		}
	}
}
