package source_test

import (
	"testing"

	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
)

// FuzzFileSums reads what may be left of a record of file sums.
func FuzzFileSums(f *testing.F) {
	store, err := snapshot.Open(f.TempDir(), snapshot.Options{})
	if err != nil {
		f.Skip(err)
	}
	f.Cleanup(func() {
		if err := store.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Add([]byte{})
	f.Add(make([]byte, 72))
	f.Add(make([]byte, 147))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n := source.DecodeSums(store, data); n > len(data)/72 {
			t.Errorf("%d bytes are %d sums", len(data), n)
		}
	})
}
