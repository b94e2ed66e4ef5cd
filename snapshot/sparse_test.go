package snapshot_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/snapshot"
)

// TestSparseUnlinked takes one of two names from files of a TiB that are holes almost
// everywhere, which has their content compared. Read as zeros that takes hours.
func TestSparseUnlinked(t *testing.T) {
	dir := t.TempDir()
	s := openStoreWith(t, dir, snapshot.Options{Snapshotter: snapshot.Copy})
	const size = 1 << 40
	spots := []int64{0, 1 << 20, 1 << 30, size / 2, size - 1<<20}
	sparse := func(path string) {
		f, err := os.Create(path)
		must(t, err, f.Truncate(size))
		for _, at := range spots {
			_, err := f.WriteAt([]byte("data"), at)
			must(t, err)
		}
		must(t, f.Close())
	}
	base := layOver(t, s, nil, func(root string) {
		for _, name := range []string{"same", "early", "late"} {
			sparse(root + "/" + name)
			must(t, os.Link(root+"/"+name, root+"/"+name+"-too"))
		}
	})
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	for _, name := range []string{"same", "early", "late"} {
		must(t, os.Remove(a.Root()+"/"+name+"-too"))
	}
	for name, at := range map[string]int64{"early": 1 << 25, "late": size - 1} {
		f, err := os.OpenFile(a.Root()+"/"+name, os.O_WRONLY, 0)
		must(t, err)
		was, err := f.Stat()
		must(t, err)
		_, err = f.WriteAt([]byte{1}, at)
		must(t, err, f.Close(), os.Chtimes(a.Root()+"/"+name, was.ModTime(), was.ModTime()))
	}
	changed, err := a.Commit()
	must(t, err)
	var got []string
	for _, name := range []string{"same", "early", "late"} {
		found, err := filepath.Glob(filepath.Join(dir, "ids/*/snapshots", changed.ID(), "fs", name))
		must(t, err)
		if len(found) > 0 {
			got = append(got, name)
		}
	}
	wantNames(t, "changed files", got, "early", "late")
}
