package snapshot_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// pack compresses content into a blob of the store.
func pack(t *testing.T, s *snapshot.Store, content []byte) (blob []byte, d digest.Digest) {
	t.Helper()
	var out bytes.Buffer
	w, err := s.CreateBlob()
	must(t, err)
	z, err := s.NewCompressor(t.Context(), snapshot.Compression{}, &out)
	must(t, err)
	_, err = z.Write(content)
	must(t, errors.Join(err, z.Close()))
	_, err = w.Write(out.Bytes())
	must(t, err)
	d, _, err = w.Commit()
	must(t, errors.Join(err, z.Remember(d), w.Close()))
	return out.Bytes(), d
}

// TestReusedBlocks compresses a layer that is nearly the same as one before, whose blob is
// there, is damaged, and is gone.
func TestReusedBlocks(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var before bytes.Buffer
	for before.Len() < 8<<20 {
		fmt.Fprintf(&before, "%x ", random.IntN(10_000))
	}
	after := slices.Concat(before.Bytes()[:5<<20], []byte("changed"), before.Bytes()[5<<20:])
	fresh, err := snapshot.Open(t.TempDir(), snapshot.Options{Snapshotter: snapshot.Copy})
	must(t, err)
	want, _ := pack(t, fresh, after)
	must(t, fresh.Close())

	for how, harm := range map[string]func(path string) error{
		"there":   func(string) error { return nil },
		"damaged": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), len(want)), 0o600) },
		"short":   func(path string) error { return os.Truncate(path, 1000) },
		"gone":    os.Remove,
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, err := snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Copy})
			must(t, err)
			_, d := pack(t, s, before.Bytes())
			must(t, s.Close(), harm(dir+"/blobs/sha256/"+d.Encoded()))
			s, err = snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Copy})
			must(t, err)
			if got, _ := pack(t, s, after); !bytes.Equal(got, want) {
				t.Error("another blob than without the one before")
			}
			must(t, s.Close())
		})
	}
}
