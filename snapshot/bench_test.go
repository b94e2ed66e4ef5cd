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

	"github.com/bobbuild/bob/snapshot"
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

// BenchmarkStep prepares, changes and commits one step after the other over 20,000
// files: "first" is one of a chain that nothing is known of, "next" goes on with it.
func BenchmarkStep(b *testing.B) {
	needMounts(b)
	data := manySmall(b)
	for _, with := range []snapshot.Snapshotter{snapshot.Overlay, snapshot.FuseOverlay, snapshot.Copy} {
		if err := works(b.TempDir(), with); err != nil {
			b.Log(err)
			continue
		}
		s := openStoreWith(b, b.TempDir(), snapshot.Options{Snapshotter: with})
		base := unpack(b, s, layerOf(data, data))
		step := func(b *testing.B, parent *snapshot.Snapshot) *snapshot.Snapshot {
			b.Helper()
			a, err := s.Prepare(b.Context(), parent)
			must(b, err, os.WriteFile(a.Root()+"/dir007/file007", nil, 0o600))
			sn, err := a.Commit()
			must(b, err)
			return sn
		}
		b.Run(string(with)+"/first", func(b *testing.B) {
			for b.Loop() {
				step(b, base)
			}
		})
		b.Run(string(with)+"/next", func(b *testing.B) {
			parent := step(b, base)
			for b.Loop() {
				parent = step(b, parent)
			}
		})
	}
}
