package filecopy_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

const (
	benchFiles = 20_000
	benchDirs  = 200
)

// benchTree makes a tree of 20,000 files of up to 4 KiB and returns their bytes.
func benchTree(b *testing.B) (dir string, size int64) {
	b.Helper()
	dir = b.TempDir()
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 4096)
	for i := range benchFiles {
		d := filepath.Join(dir, fmt.Sprintf("d%d/e%d", i%10, i%benchDirs))
		if i < benchDirs {
			must(b, os.MkdirAll(d, 0o755))
		}
		for j := range data {
			data[j] = byte(random.Uint32())
		}
		n := random.IntN(len(data))
		size += int64(n)
		must(b, os.WriteFile(filepath.Join(d, strconv.Itoa(i)+".js"), data[:n], 0o644))
	}
	return dir, size
}

// overlay mounts an empty overlay and returns its mount point.
func overlay(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		must(b, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	at := filepath.Join(dir, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work,userxattr", dir)
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		b.Skipf("mount overlay: %v", err)
	}
	b.Cleanup(func() { must(b, unix.Unmount(at, unix.MNT_DETACH)) })
	return at
}

func BenchmarkSelect(b *testing.B) {
	dir, _ := benchTree(b)
	tree := open(b, dir, "**/*.log", "node_modules", "!keep")
	for b.Loop() {
		_, err := tree.Select(b.Context(), filecopy.Source{Path: "."})
		must(b, err)
	}
}

func BenchmarkDigest(b *testing.B) {
	dir, size := benchTree(b)
	s := pick(b, open(b, dir), ".")
	b.SetBytes(size)
	for b.Loop() {
		_, err := s.Digest(b.Context())
		must(b, err)
	}
}

func BenchmarkCopyTo(b *testing.B) {
	dir, size := benchTree(b)
	s := pick(b, open(b, dir), ".")
	b.SetBytes(size)
	root := overlay(b)
	i := 0
	for b.Loop() {
		i++
		err := s.CopyTo(b.Context(), root, "/app"+strconv.Itoa(i)+"/", filecopy.Options{Owner: &filecopy.Owner{}})
		must(b, err)
	}
}
