package tree_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"golang.org/x/sys/unix"
)

// entriesOf makes entries of words: "d/" is a directory, "l->t" a link, "h=t" a hard link
// and anything else a file.
func entriesOf(t *testing.T, words string) []tree.Entry {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for word := range strings.FieldsSeq(words) {
		h := &tar.Header{Name: word, Typeflag: tar.TypeReg, Mode: 0o644}
		if name, target, ok := strings.Cut(word, "->"); ok {
			h = &tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
		} else if name, target, ok := strings.Cut(word, "="); ok {
			h = &tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target, Mode: 0o644}
		} else if strings.HasSuffix(word, "/") {
			h = &tar.Header{Name: word, Typeflag: tar.TypeDir, Mode: 0o755}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := tree.ReadEntries(t.Context(), &b, bounded.NewBudget(0))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// list returns the paths in a tree, directories with a slash behind them.
func list(n *tree.Node, path string) (all []string) {
	for name, kid := range n.Kids {
		below := relpath.Join(path, name)
		if kid.IsDir() {
			all = append(append(all, below+"/"), list(kid, below)...)
			continue
		}
		all = append(all, below)
	}
	slices.Sort(all)
	return all
}

func TestMerge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		layers []string
		want   string
	}{
		"one":                      {[]string{"a d/ d/b"}, "a d/ d/b"},
		"parents nobody mentions":  {[]string{"a/b/c"}, "a/ a/b/ a/b/c"},
		"another over it":          {[]string{"a d/b", "d/c"}, "a d/ d/b d/c"},
		"removed":                  {[]string{"a d/b d/c", ".wh.a d/.wh.b"}, "d/ d/c"},
		"removed and made anew":    {[]string{"a", ".wh.a a"}, "a"},
		"opaque":                   {[]string{"d/a d/b", "d/ d/.wh..wh..opq d/c"}, "d/ d/c"},
		"a file in place":          {[]string{"d/a", "d"}, "d"},
		"a directory in place":     {[]string{"d", "d/ d/a"}, "d/ d/a"},
		"through a link":           {[]string{"real/ link->real", "link/a"}, "link real/ real/a"},
		"through a link to where":  {[]string{"link->gone/deep", "link/a"}, "gone/ gone/deep/ gone/deep/a link"},
		"a name of a file below":   {[]string{"a", "d/b=a"}, "a d/ d/b"},
		"whiteout of what isn't":   {[]string{"a", "d/.wh.b .wh.c"}, "a"},
		"whiteouts are one's own":  {[]string{"d/a", "d/b", "d/.wh.a"}, "d/ d/b"},
		"a removed directory":      {[]string{"d/e/a", ".wh.d", "d/b"}, "d/ d/b"},
		"dots and slashes in name": {[]string{"./a //b c/./d"}, "a b c/ c/d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			merged := tree.NewDirectory()
			for i, words := range c.layers {
				before := fmt.Sprint(list(merged, ""))
				layer, err := tree.FromEntries(entriesOf(t, words))
				if err != nil {
					t.Fatal(err)
				}
				next, err := tree.Merge(merged, layer)
				if err != nil {
					t.Fatal(err)
				}
				if after := fmt.Sprint(list(merged, "")); after != before {
					t.Errorf("layer %d changed what is below it from %s to %s", i, before, after)
				}
				merged = next
			}
			if got := strings.Join(list(merged, ""), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]string{
		"../a":               "leads out",
		"a/b a/../../c":      "leads out",
		"loop->loop loop/a":  unix.ELOOP.Error(),
		"a a/b":              unix.ENOTDIR.Error(),
		"d/ h=d":             "directory",
		"h=../outside":       "leads out",
		"d/.wh.x d/.wh.x/in": ".wh.",
	} {
		_, err := tree.FromEntries(entriesOf(t, words))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", words, err, want)
		}
	}
	// What is missing below is only seen when a layer is laid over it.
	layer, err := tree.FromEntries(entriesOf(t, "h=missing"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Merge(tree.NewDirectory(), layer); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a link to what is missing: %v", err)
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	entries := entriesOf(t, "d/ d/a l->d h=d/a etc/passwd")
	data, err := tree.Encode(entries)
	if err != nil {
		t.Fatal(err)
	}
	again, err := tree.Decode(data)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(entries) {
		t.Errorf("got %v, %v, want %v", again, err, entries)
	}
	for i := range data {
		if got, err := tree.Decode(data[:i]); err == nil {
			t.Errorf("cut after %d bytes: got %v", i, got)
		}
	}
}
