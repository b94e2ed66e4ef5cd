package filecopy_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func digestOf(t *testing.T, dir string, owners bool, source string) digest.Digest {
	t.Helper()
	s := pick(t, open(t, dir), source)
	sum := s.Digest
	if owners {
		sum = s.DigestWithOwners
	}
	d, err := sum(t.Context())
	must(t, err)
	must(t, d.Validate())
	again, err := sum(t.Context())
	must(t, err)
	if again != d {
		t.Errorf("the same selection has digests %s and %s", d, again)
	}
	return d
}

// TestDigestSensitivity changes one thing at a time. The digest is another if, and only
// if, something else is copied; times don't count.
func TestDigestSensitivity(t *testing.T) {
	t.Parallel()
	files := []string{
		"d/f=content", "d/g", "d/sub/h=twins", "d/sub/twin=twins", "d/l -> f", "d/p |", "d/empty/",
		"d/one=three names", "d/three=three names",
	}
	rename := func(from, to string) func(string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	}
	write := func(name, content string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) }
	}
	chmod := func(name string, mode uint32) func(string) error {
		return func(dir string) error { return unix.Chmod(filepath.Join(dir, name), mode) }
	}
	link := func(old, name string) func(string) error {
		return func(dir string) error {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
			return os.Link(filepath.Join(dir, old), filepath.Join(dir, name))
		}
	}
	attribute := func(name, key string) func(string) error {
		return func(dir string) error { return unix.Setxattr(filepath.Join(dir, name), key, []byte("v"), 0) }
	}
	tests := []struct {
		name   string
		change func(dir string) error
		same   bool
	}{
		{"nothing", func(string) error { return nil }, true},
		{"bytes of equal length", write("d/f", "CONTENT"), false},
		{"a byte more", write("d/f", "content\x00"), false},
		{"emptied", write("d/f", ""), false},
		{"zeros for nothing", write("d/new", "\x00"), false},
		{"new file", write("d/n", ""), false},
		{"file removed", func(dir string) error { return os.Remove(dir + "/d/g") }, false},
		{"file renamed", rename("d/g", "d/k"), false},
		{"file moved", rename("d/g", "d/sub/g"), false},
		{"directory renamed", rename("d/sub", "d/tub"), false},
		{"empty directory removed", func(dir string) error { return os.Remove(dir + "/d/empty") }, false},
		{"directory for file", func(dir string) error { return replaceWith(dir, "d/g", "d/g/") }, false},
		{"link for file", func(dir string) error { return replaceWith(dir, "d/g", "d/g -> f") }, false},
		{"other link target", func(dir string) error { return replaceWith(dir, "d/l", "d/l -> g") }, false},
		{"fifo for file", func(dir string) error { return replaceWith(dir, "d/g", "d/g |") }, false},
		{"file for fifo", func(dir string) error { return replaceWith(dir, "d/p", "d/p=") }, false},
		{"mode of a file", chmod("d/f", 0o755), false},
		{"set-ID of a file", chmod("d/f", 0o4644), false},
		{"mode of a directory", chmod("d/sub", 0o700), false},
		{"sticky bit", chmod("d/sub", 0o1755), false},
		{"attribute of a file", attribute("d/f", "user.a"), false},
		{"attribute of a directory", attribute("d/sub", "user.a"), false},
		{"attribute of overlayfs", attribute("d/f", "user.overlay.x"), true},
		{"content written again", write("d/f", "content"), true},
		{"modification time", func(dir string) error { return os.Chtimes(dir+"/d/f", stamp, stamp) }, true},
		{"time of a directory", func(dir string) error { return os.Chtimes(dir+"/d/sub", stamp, stamp) }, true},
		{"mode of the source itself", chmod("d", 0o700), true},
		{"hard link for a copy", link("d/sub/h", "d/sub/twin"), false},
		{"hard link in another directory", link("d/one", "d/sub/new"), false},
		{"copy for a hard link", func(dir string) error { return replaceWith(dir, "d/two", "d/two=three names") }, false},
		{"hard link to another of the same content", link("d/three", "d/two"), false},
		{"one more hard link", link("d/two", "d/three"), false},
		{"a name outside", link("d/f", "other"), true},
		{"another first name", rename("d/one", "d/zone"), false},
		{"something outside", write("other", "x"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := build(t, files...)
			must(t, os.Link(dir+"/d/one", dir+"/d/two"))
			before, copied := digestOf(t, dir, false, "d"), copyOf(t, dir)
			if err := tt.change(dir); err != nil {
				if strings.Contains(tt.name, "attribute") {
					t.Skipf("set attribute: %v", err)
				}
				t.Fatal(err)
			}
			if after := digestOf(t, dir, false, "d"); (after == before) != tt.same {
				t.Errorf("the digests are equal: %v, want %v", after == before, tt.same)
			}
			if same := slices.Equal(copied, copyOf(t, dir)); same != tt.same {
				t.Errorf("the copies are equal: %v, want %v", same, tt.same)
			}
		})
	}
}

// copyOf describes what becomes of d where it is copied to.
func copyOf(t *testing.T, dir string) []string {
	t.Helper()
	root := t.TempDir()
	must(t, pick(t, open(t, dir), "d").CopyTo(t.Context(), root, "/copy", filecopy.Options{Owner: self()}))
	return described(t, root)
}

// TestDigestOfDirectoryItself changes what a mounted directory has beside its contents.
func TestDigestOfDirectoryItself(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(dir string) error{
		"mode":      func(dir string) error { return unix.Chmod(dir, 0o701) },
		"attribute": func(dir string) error { return unix.Setxattr(dir, "user.a", []byte("v"), 0) },
		"owner":     func(dir string) error { return os.Chown(dir, 7, 7) },
	} {
		dir := build(t, "d/f=content", "d/sub/g")
		must(t, unix.Chmod(dir+"/d", 0o755))
		sum := func(itself bool) digest.Digest {
			t.Helper()
			s, err := open(t, dir).Select(t.Context(), filecopy.Source{Path: "d", Itself: itself})
			must(t, err)
			d, err := s.DigestWithOwners(t.Context())
			must(t, err)
			return d
		}
		contents, whole := sum(false), sum(true)
		if os.Getuid() == 0 && contents != whole {
			t.Error("a directory like any other has a digest of its own")
		}
		if err := change(dir + "/d"); err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		if sum(false) != contents {
			t.Errorf("%s of the directory changes the digest of its contents", name)
		}
		if sum(true) == whole {
			t.Errorf("%s of the directory doesn't change its digest", name)
		}
	}
}

// replaceWith puts what add describes in the place of name.
func replaceWith(dir, name, file string) error {
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		return err
	}
	if target, ok := strings.CutPrefix(file, name+" -> "); ok {
		return os.Symlink(target, filepath.Join(dir, name))
	}
	if file == name+" |" {
		return unix.Mkfifo(filepath.Join(dir, name), 0o644)
	}
	if file == name+"/" {
		return os.Mkdir(filepath.Join(dir, name), 0o755)
	}
	_, content, _ := strings.Cut(file, "=")
	return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
}

func TestDigestOwners(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := build(t, "d/f")
	plain, owned := digestOf(t, dir, false, "d"), digestOf(t, dir, true, "d")
	must(t, os.Chown(dir+"/d/f", 5, 0))
	if digestOf(t, dir, false, "d") != plain {
		t.Error("the owner changes Digest")
	}
	if digestOf(t, dir, true, "d") == owned {
		t.Error("the owner doesn't change DigestWithOwners")
	}
}

// TestDigestSources compares ways to write sources.
func TestDigestSources(t *testing.T) {
	t.Parallel()
	dir := build(t, "a=same", "b=same", "d/a=same", "e/a=same", "l -> a", "x/y/a=same", "two/a=same", "two/b=same")
	for _, tt := range []struct {
		one, other string
		same       bool
	}{
		{"a", "./x/../a", true},
		{"a", "d/a", true},
		{"a", "b", false},
		{"a", "l", false},
		{"d", "e", true},
		{"d", "d/", true},
		{"d", "d/a", false},
		{"d", "x", false},
		{"[ab]", "two/*", true},
		{"two", "two/*", false},
		{"[de]", "d", false},
		{"none*", "nor*", true},
	} {
		if got := digestOf(t, dir, false, tt.one) == digestOf(t, dir, false, tt.other); got != tt.same {
			t.Errorf("%q and %q have equal digests: %v", tt.one, tt.other, got)
		}
	}
}

// TestDigestZeros checks that holes and written zeros are the same content, and
// that zeros are counted right.
func TestDigestZeros(t *testing.T) {
	t.Parallel()
	const block = 64 << 10
	for _, size := range []int{1, block - 1, block, block + 1, 5*block + 7} {
		hole, zeros, longer := t.TempDir(), t.TempDir(), t.TempDir()
		must(t, os.WriteFile(filepath.Join(hole, "f"), nil, 0o644))
		must(t, os.Truncate(filepath.Join(hole, "f"), int64(size)))
		must(t, os.WriteFile(filepath.Join(zeros, "f"), make([]byte, size), 0o644))
		must(t, os.WriteFile(filepath.Join(longer, "f"), make([]byte, size+1), 0o644))
		want := digestOf(t, hole, false, "f")
		if digestOf(t, zeros, false, "f") != want {
			t.Errorf("%d zeros differ from a hole", size)
		}
		if digestOf(t, longer, false, "f") == want {
			t.Errorf("%d and %d zeros are the same", size, size+1)
		}
	}
}

// TestDigestStable pins the format: a change makes every cache useless.
func TestDigestStable(t *testing.T) {
	t.Parallel()
	dir := build(t, "d/f=content", "d/sub/g=", "d/l -> f")
	for _, f := range []string{"d/f", "d/sub/g"} {
		must(t, os.Chmod(filepath.Join(dir, f), 0o644))
	}
	must(t, os.Chmod(filepath.Join(dir, "d/sub"), 0o755))
	const want = "sha256:201cb614762f3d7d1f966130351e4263001ae20b17fb07b5982571b26b297f85"
	if got := digestOf(t, dir, false, "d/*"); got != want {
		t.Errorf("digest is %s, want %s", got, want)
	}
}

// Each names all that a digest covers, each entry with a sum of its own.
func TestEach(t *testing.T) {
	t.Parallel()
	dir := build(t, "d/f=content", "d/sub/g=content", "d/l -> f", "x/h=h")
	sums := func(source string) map[string]filecopy.Sum {
		t.Helper()
		all := make(map[string]filecopy.Sum)
		must(t, pick(t, open(t, dir), source).Each(t.Context(), func(path string, sum filecopy.Sum) error {
			all[path] = sum
			return nil
		}))
		return all
	}
	must(t, os.Link(dir+"/x/h", dir+"/x/twin"))
	linked := sums("x")
	must(t, os.Remove(dir+"/x/twin"))
	must(t, os.WriteFile(dir+"/x/twin", []byte("h"), 0o600))
	fi, err := os.Stat(dir + "/x/h")
	must(t, err)
	must(t, os.Chmod(dir+"/x/twin", fi.Mode()))
	if parted := sums("x"); parted["x/h"] != linked["x/h"] || parted["x/twin"] == linked["x/twin"] {
		t.Error("a file that isn't a hard link any more has the same sum")
	}
	must(t, os.Remove(dir+"/x/twin"))
	before := sums("d")
	if got, want := slices.Sorted(maps.Keys(before)), []string{"d/f", "d/l", "d/sub", "d/sub/g"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if before["d/f"] != before["d/sub/g"] {
		t.Error("equal files have different sums")
	}
	if got, want := slices.Sorted(maps.Keys(sums("x/*"))), []string{"x/h"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	must(t, os.WriteFile(filepath.Join(dir, "d/sub/g"), []byte("changed"), 0o644))
	must(t, os.Chmod(filepath.Join(dir, "d/sub"), 0o700))
	for path, sum := range sums("d") {
		if changed := strings.HasPrefix(path, "d/sub"); changed == (sum == before[path]) {
			t.Errorf("%s: changed %t, sum %x, before %x", path, changed, sum, before[path])
		}
	}
}
