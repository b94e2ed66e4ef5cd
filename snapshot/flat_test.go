package snapshot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/snapshot"
)

// piled are n layers. Each has a file of its own, replaces one and removes another.
func piled(t *testing.T, n int) []snapshot.Layer {
	t.Helper()
	layers := []snapshot.Layer{layer(t, folder("d/"), file("d/all", "0"))}
	for i := 1; i < n; i++ {
		layers = append(layers, layer(t, file(fmt.Sprintf("d/%d", i), ""), file("d/all", fmt.Sprint(i)), file(fmt.Sprintf("d/.wh.%d", i-3), "")))
	}
	return layers
}

// TestManyLayers lays steps over more layers than an overlay takes, in a process that may
// open fewer files than that.
func TestManyLayers(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	fewFiles(t, 256)
	for _, n := range []int{240, 520} {
		base := unpack(t, s, piled(t, n)...)
		first := layOver(t, s, base, func(root string) {
			must(t, os.Remove(fmt.Sprintf("%s/d/%d", root, n-1)))
			write(t, root+"/d/1", "back")
		})
		second := layOver(t, s, first, func(root string) { must(t, os.Remove(root+"/d/all")) })
		wantNames(t, fmt.Sprint(n, " layers, first step"), tarNames(t, readDiff(t, first)), "d/", "d/1", fmt.Sprintf("d/.wh.%d", n-1))
		wantNames(t, fmt.Sprint(n, " layers, second step"), tarNames(t, readDiff(t, second)), "d/", "d/.wh.all")
		wantNames(t, fmt.Sprint(n, " layers"), names(t, viewed(t, s, second)), ".", "d", "d/1", fmt.Sprintf("d/%d", n-3), fmt.Sprintf("d/%d", n-2))
	}
	must(t, s.Close())
	left, err := filepath.Glob(dir + "/ids/*/active/[^.]*")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}
