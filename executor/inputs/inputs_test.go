package inputs_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/inputs"
	"github.com/opencontainers/go-digest"
)

// write makes a directory with the files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// note reads the sources in c for reads.
func note(t *testing.T, reads *inputs.Reads, c inputs.Context, sources ...filecopy.Source) {
	t.Helper()
	tree, err := filecopy.OpenDir(c.Dir, c.Ignore)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, src := range sources {
		selection, err := tree.Select(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		d, err := selection.Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reads.Note(src, d)
	}
}

var (
	fingerprint = digest.FromString("fingerprint")
	sources     = []filecopy.Source{{Path: "dir", Exclude: []string{"*.o"}}, {Path: "x*"}, {Path: "file", Required: true}}
	files       = map[string]string{"dir/a": "1", "dir/b.o": "1", "x1": "1", "file": "1", "unread": "1"}
)

// annotate returns the annotations of an image that was made of sources of files.
func annotate(t *testing.T, order ...int) map[string]string {
	t.Helper()
	var reads inputs.Reads
	c := inputs.Context{Dir: write(t, files)}
	for _, i := range order {
		note(t, &reads, c, sources[i])
	}
	annotations, err := reads.Annotations(fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	return annotations
}

func TestUpToDate(t *testing.T) {
	t.Parallel()
	annotations := annotate(t, 0, 1, 2)
	for what, test := range map[string]struct {
		file, content string // "" is gone
		want          bool
	}{
		"nothing":             {"file", "1", true},
		"a file that is read": {"file", "2", false},
		"a file less":         {"file", "", false},
		"a file of a dir":     {"dir/a", "2", false},
		"a file more in it":   {"dir/c", "1", false},
		"an excluded file":    {"dir/b.o", "2", true},
		"a match more":        {"x2", "1", false},
		"all matches less":    {"x1", "", false},
		"a file not read":     {"unread", "2", true},
		"a file more":         {"new", "1", true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			now := maps.Clone(files)
			if now[test.file] = test.content; test.content == "" {
				delete(now, test.file)
			}
			got, err := inputs.Context{Dir: write(t, now)}.UpToDate(t.Context(), fingerprint, annotations)
			if err != nil || got != test.want {
				t.Errorf("got %t, %v, want %t", got, err, test.want)
			}
		})
	}
}

// TestOtherAnnotations has images that nothing can be said of, and is told of none that
// it is up to date.
func TestOtherAnnotations(t *testing.T) {
	t.Parallel()
	c := inputs.Context{Dir: write(t, files)}
	whole := annotate(t, 0, 1, 2)
	for what, change := range map[string]func(map[string]string){
		"no reads":       func(a map[string]string) { delete(a, inputs.AnnotationReads) },
		"no digest":      func(a map[string]string) { delete(a, inputs.AnnotationDigest) },
		"damaged reads":  func(a map[string]string) { a[inputs.AnnotationReads] = `[{"path":` },
		"fewer reads":    func(a map[string]string) { a[inputs.AnnotationReads] = `[]` },
		"reads outside":  func(a map[string]string) { a[inputs.AnnotationReads] = `[{"path":"../../etc/passwd"}]` },
		"another digest": func(a map[string]string) { a[inputs.AnnotationDigest] = fingerprint.String() },
	} {
		a := maps.Clone(whole)
		change(a)
		if got, err := c.UpToDate(t.Context(), fingerprint, a); got || err != nil {
			t.Errorf("%s: got %t, %v", what, got, err)
		}
	}
	for what, f := range map[string]digest.Digest{"another": digest.FromString("other"), "no": ""} {
		if got, err := c.UpToDate(t.Context(), f, whole); got || err != nil {
			t.Errorf("%s fingerprint: got %t, %v", what, got, err)
		}
	}
}

// TestAnnotations: they don't depend on the order in which a build reads, nor on how
// often.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	want := annotate(t, 0, 1, 2)
	if len(want) != 2 {
		t.Fatalf("got %q", want)
	}
	for _, order := range [][]int{{2, 1, 0}, {1, 0, 1, 2, 0}} {
		if got := annotate(t, order...); !maps.Equal(got, want) {
			t.Errorf("in order %v: %q, want %q", order, got, want)
		}
	}
	if got, err := new(inputs.Reads).Annotations(""); got != nil || err != nil {
		t.Errorf("without a fingerprint: %q, %v", got, err)
	}
}
