package executor_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/inputs"
	"github.com/opencontainers/go-digest"
)

// TestUpToDate builds an image and changes what it was made of, and what it
// wasn't, one by one. A base with a trigger reads a file that the Dockerfile
// doesn't name.
func TestUpToDate(t *testing.T) {
	k := newKit(t, shell)
	k.base("os", map[string]string{"etc/os": "x"})
	k.mustBuild("FROM HOST/os\nONBUILD COPY triggered /\n", executor.Options{Tags: []string{k.host + "/triggers:1"}})
	files := map[string]string{"triggered": "1", "dir/a": "1", "dir/b.log": "1", "m/ounted": "1", "un*": "1", "unread": "1", "x1": "1"}
	original := func() map[string]string { return maps.Clone(files) }
	o := executor.Options{
		Context: contextDir(t, original()), Ignore: []string{"**/*.log"},
		Tags: []string{k.host + "/app:1"}, Fingerprint: digest.FromString("f"),
	}
	k.mustBuild("FROM HOST/triggers:1\nCOPY dir /dir\nCOPY x* /\nRUN --mount=target=/m,source=m y=1\nRUN --mount=target=/n,source=un* z=1\n", o)
	img, _ := k.pull(k.host + "/app:1")
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	annotations := manifest.Annotations
	for _, key := range []string{inputs.AnnotationDigest, inputs.AnnotationReads} {
		if annotations[key] == "" {
			t.Fatalf("annotations are %q", annotations)
		}
	}
	with := func(name, content string) map[string]string {
		files := original()
		if files[name] = content; content == "" {
			delete(files, name)
		}
		return files
	}
	for what, c := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"nothing":                    {original(), true},
		"a file that nothing reads":  {with("unread", "2"), true},
		"a file more":                {with("new", "1"), true},
		"a file that is ignored":     {with("dir/b.log", "2"), true},
		"a file in a directory":      {with("dir/a", "2"), false},
		"a file more in a directory": {with("dir/c", "1"), false},
		"a match less":               {with("x1", ""), false},
		"a match more":               {with("x2", "1"), false},
		"a file in a mount":          {with("m/ounted", "2"), false},
		"a mount less":               {with("un*", ""), false},
		"what a trigger reads":       {with("triggered", "2"), false},
	} {
		changed := o
		changed.Context = contextDir(t, c.files)
		got, err := changed.UpToDate(t.Context(), annotations)
		if err != nil || got != c.want {
			t.Errorf("%s changed: up to date is %t, %v; want %t", what, got, err, c.want)
		}
	}
	other := o
	other.Fingerprint = digest.FromString("g")
	if got, err := other.UpToDate(t.Context(), annotations); got || err != nil {
		t.Errorf("with another fingerprint it is up to date: %t, %v", got, err)
	}
	unmarked := maps.Clone(annotations)
	delete(unmarked, inputs.AnnotationReads)
	if got, err := o.UpToDate(t.Context(), unmarked); got || err != nil {
		t.Errorf("without %s it is up to date: %t, %v", inputs.AnnotationReads, got, err)
	}
}

// TestInputsOfCachedBuild builds twice: what was read is known in the second
// build too, in which every step is.
func TestInputsOfCachedBuild(t *testing.T) {
	k := newKit(t, shell)
	text := "FROM " + k.base("os", nil) + "\nCOPY a /\nRUN b=1\n"
	o := executor.Options{Context: contextDir(t, map[string]string{"a": "1"}), Fingerprint: digest.FromString("f")}
	first, second := k.mustBuild(text, o), k.mustBuild(text, o)
	if first.Manifest.Digest != second.Manifest.Digest {
		t.Errorf("built %s, then %s", first.Manifest.Digest, second.Manifest.Digest)
	}
}

func contextDir(t *testing.T, files map[string]string) string {
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
