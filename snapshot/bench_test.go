package snapshot_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// manySmall is 20,000 files in 200 directories, oneLarge a file of 256 MiB.
func manySmall(b *testing.B) []byte {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for d := range 200 {
		h := folder(fmt.Sprintf("dir%03d/", d)).Header
		h.Format = tar.FormatPAX
		must(b, w.WriteHeader(&h))
		for f := range 100 {
			body := make([]byte, r.IntN(4000))
			for i := range body {
				body[i] = byte(r.IntN(64))
			}
			h := file(fmt.Sprintf("dir%03d/file%03d", d, f), "").Header
			h.Size, h.Format = int64(len(body)), tar.FormatPAX
			must(b, w.WriteHeader(&h))
			_, err := w.Write(body)
			must(b, err)
		}
	}
	must(b, w.Close())
	return out.Bytes()
}

func oneLarge(b *testing.B) []byte {
	b.Helper()
	body := make([]byte, 256<<20)
	r := rand.New(rand.NewPCG(3, 4))
	for i := 0; i < len(body); i += 2 { // half of it compressible
		body[i] = byte(r.Uint32())
	}
	return makeTar(b, file("large", string(body)))
}

var benchmarks = []struct {
	name string
	make func(*testing.B) []byte
}{{"20000SmallFiles", manySmall}, {"One256MiBFile", oneLarge}}

// BenchmarkExtract unpacks an uncompressed layer into a new store each time. Old
// stores stay until the end: to remove them would slow down later ones on ext4.
func BenchmarkExtract(b *testing.B) {
	needOwners(b)
	for _, c := range benchmarks {
		b.Run(c.name, func(b *testing.B) {
			data := c.make(b)
			l := layerOf(data, data)
			dir := b.TempDir()
			b.SetBytes(int64(len(data)))
			for i := 0; b.Loop(); i++ {
				unpack(b, openStore(b, filepath.Join(dir, fmt.Sprint(i))), l)
			}
		})
	}
}

// BenchmarkDiff archives the upper directory of such a tree.
func BenchmarkDiff(b *testing.B) {
	needOwners(b)
	for _, c := range benchmarks {
		b.Run(c.name, func(b *testing.B) {
			data := c.make(b)
			sn := unpack(b, openStore(b, b.TempDir()), layerOf(data, data))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				r, err := sn.Diff(b.Context(), nil)
				must(b, err)
				_, err = io.Copy(io.Discard, r)
				must(b, err, r.Close())
			}
		})
	}
}

// BenchmarkStep mounts and commits an empty step.
func BenchmarkStep(b *testing.B) {
	needMounts(b)
	s := openStore(b, b.TempDir())
	for b.Loop() {
		a, err := s.Prepare(b.Context(), nil)
		must(b, err, os.WriteFile(a.Root()+"/f", nil, 0o600))
		_, err = a.Commit()
		must(b, err)
	}
}
