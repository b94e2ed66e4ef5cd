package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox"
)

// newSource returns a directory with a file in it, in a directory of its own.
func newSource(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "source")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o751), os.Lchown(dir, 5, 6), os.WriteFile(filepath.Join(dir, "f"), []byte("content\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInChrootMounts(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t, [2]string{"link", "->/new/place"}, [2]string{"hides/x", "y"})
	written, read := newSource(t), newSource(t)
	before, beforeRead := tree(t, root), tree(t, filepath.Dir(read))
	var out bytes.Buffer
	// cat may hand the pages of a file over to the pipe, and those of a secret are wiped.
	p := shell(root, `cat /a/b/f /dev/pipes/f /new/place/f; stat -c %a:%u:%g /a/b /new/place /hides /tmpfs
		echo x > /a/b/g; echo more > /new/place/g; echo x > /hides/z; ls /hides
		stat -c %a:%u:%g:%s /run/secrets/s; echo $(cat /run/secrets/s); ls -A /a/b/deeper`)
	p.Mounts = []sandbox.Mount{
		{Source: read, Target: "/a/b", ReadOnly: true},
		{Source: filepath.Join(read, "f"), Target: "/dev/pipes/f", ReadOnly: true},
		{Source: written, Target: "/link"},
		{Kind: sandbox.Tmpfs, Target: "/hides", Size: 1 << 20},
		{Kind: sandbox.Tmpfs, Target: "/tmpfs"},
		{Kind: sandbox.Tmpfs, Target: "/a/b/deeper"},
		{Kind: sandbox.Memory, Target: "/run/secrets/s", File: sandbox.File{Content: []byte("hush\n"), UID: 7, GID: 8, Mode: 0o440}},
	}
	p.Stdout, p.Stderr = &out, &out
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	want := "content\ncontent\ncontent\n751:5:6\n751:5:6\n755:0:0\n1777:0:0\nz\n440:7:8:5\nhush\n"
	if out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
	if got, err := os.ReadFile(filepath.Join(written, "g")); err != nil || string(got) != "more\n" {
		t.Errorf("written through the mount: %q, %v", got, err)
	}
	if after := tree(t, filepath.Dir(read)); after != beforeRead {
		t.Errorf("source before:\n%safter:\n%s", beforeRead, after)
	}
	if got := strings.Join(names(t, filepath.Dir(written)), " "); got != ". source source/f source/g" {
		t.Errorf("beside the written source: %s", got)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	for _, name := range []string{"hides", "etc", "dev", "."} {
		if !slices.Contains(p.Restored, name) {
			t.Errorf("%s was changed and restored, but restored are %q", name, p.Restored)
		}
	}
}

// TestInChrootMisusedMounts has commands do with mounts what the kernel refuses
// elsewhere.
func TestInChrootMisusedMounts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		err          string
		want         string // names in the root file system that are new
		source       string // names in the source
	}{
		{name: "cache emptied", script: "rm -rf /cache", source: "."},
		{name: "cache moved", script: "mv /cache /tmp/c", err: "mount on /cache: the command gave it another name", source: ". f"},
		{name: "parent of cache moved", script: "mv /opt /opt2", want: "opt2 opt2/cache", source: ". f"},
		{name: "cache replaced", script: "rm -rf /cache; mkdir /cache; echo x > /cache/y", err: "something else in its place", want: "cache cache/y", source: "."},
		{name: "secret moved", script: "mv /run/s /tmp/s", err: "mount on /run/s: the command gave it another name", source: ". f"},
		{name: "secret linked", script: "ln /run/s /tmp/s", err: "mount on /run/s: the command gave it another name", want: "tmp/s", source: ". f"},
		{name: "secret linked and removed", script: "ln /run/s /tmp/s; ln /run/s /tmp/t; rm /run/s", err: "mount on /run/s: the command gave it another name", want: "tmp/s tmp/t", source: ". f"},
		{name: "secret removed", script: "rm /run/s", source: ". f"},
		{name: "copy moved", script: "mv /read /tmp/r", err: "mount on /read: the command gave it another name", source: ". f"},
		{name: "hosts replaced", script: "echo x > /tmp/h; mv /tmp/h /etc/hosts", want: "etc etc/hosts", source: ". f"},
		{name: "devices removed", script: "rm -rf /dev", source: ". f"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t, [2]string{"opt/", ""})
			cache, read := newSource(t), newSource(t)
			beforeRead := tree(t, read)
			before := names(t, root)
			p := shell(root, test.script)
			target := "/cache"
			if strings.Contains(test.script, "/opt") {
				target = "/opt/cache"
			}
			p.Mounts = []sandbox.Mount{
				{Source: cache, Target: target},
				{Source: read, Target: "/read", ReadOnly: true},
				{Kind: sandbox.Memory, Target: "/run/s", File: sandbox.File{Content: []byte("hush\n"), Mode: 0o400}},
			}
			var out bytes.Buffer
			p.Stderr = &out
			err := r.Run(t.Context(), p)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error is %v, want %q\n%s", err, test.err, &out)
			}
			added := slices.DeleteFunc(names(t, root), func(name string) bool { return slices.Contains(before, name) })
			if got := strings.Join(added, " "); got != test.want {
				t.Errorf("new are %q, want %q", got, test.want)
			}
			for _, name := range added {
				content, err := os.ReadFile(filepath.Join(root, name))
				if err == nil && strings.Contains(string(content), "hush") {
					t.Errorf("the secret is in %s", name)
				}
			}
			if got := strings.Join(names(t, cache), " "); got != test.source {
				t.Errorf("in the cache are %s, want %s", got, test.source)
			}
			if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o751 {
				t.Errorf("cache is %v, %v", info, err)
			}
			if after := tree(t, read); after != beforeRead {
				t.Errorf("source before:\n%safter:\n%s", beforeRead, after)
			}
		})
	}
}

// TestInChrootLinksIntoCache has files of a cache and of the image linked to each
// other: a later change of the one must not be seen in the other.
func TestInChrootLinksIntoCache(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	cache := newSource(t)
	p := shell(root, "ln /cache/f /out; ln /cache/f /cache/f2; echo own > /own; ln /own /cache/own; echo x > /cache/a; ln /cache/a /cache/b")
	p.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache"}}
	if err := r.Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	inode := func(name string) (ino, links uint64) {
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino, st.Nlink
	}
	for name, want := range map[string]uint64{
		filepath.Join(root, "out"): 1, filepath.Join(root, "own"): 1,
		filepath.Join(cache, "own"): 1, filepath.Join(cache, "f"): 2, filepath.Join(cache, "a"): 2,
	} {
		if _, links := inode(name); links != want {
			t.Errorf("%s has %d names, want %d", name, links, want)
		}
	}
	f, _ := inode(filepath.Join(cache, "f"))
	f2, _ := inode(filepath.Join(cache, "f2"))
	if f != f2 {
		t.Error("files of the cache are no longer the same")
	}
	if content, err := os.ReadFile(filepath.Join(cache, "f2")); err != nil || string(content) != "content\n" {
		t.Errorf("f2 is %q, %v", content, err)
	}
}

// TestInChrootSharedCache has many commands use one cache.
func TestInChrootSharedCache(t *testing.T) {
	t.Parallel()
	r, _ := newChroot(t)
	cache := newSource(t)
	var wg sync.WaitGroup
	for i := range 4 {
		_, root := newChroot(t)
		wg.Go(func() {
			p := shell(root, fmt.Sprintf("ls /cache > /dev/null; echo x > /cache/%d", i))
			p.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache"}}
			if err := r.Run(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := strings.Join(names(t, filepath.Dir(cache)), " "); got != ". source source/0 source/1 source/2 source/3 source/f" {
		t.Error(got)
	}
}

// TestInChrootLostCache has a command find what is left of a cache when the bob
// before was killed while it had it.
func TestInChrootLostCache(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	cache := newSource(t)
	if err := os.Rename(cache, cache+".bob-away"); err != nil {
		t.Fatal(err)
	}
	p := shell(root, "cat /cache/f && echo x > /cache/x")
	p.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache"}}
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := strings.Join(names(t, filepath.Dir(cache)), " "); got != ". source source/f source/x" {
		t.Error(got)
	}
}

// TestInChrootOtherFileSystem has a source that can't be moved.
func TestInChrootOtherFileSystem(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	dir, err := os.MkdirTemp("/dev/shm", "bob-test-") //nolint:usetesting // on another file system
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cache := filepath.Join(dir, "c")
	if err := errors.Join(os.Mkdir(cache, 0o700), os.WriteFile(filepath.Join(cache, "f"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	p := shell(root, "mv /cache/f /cache/g; echo x > /cache/h; exit 3")
	p.Mounts = []sandbox.Mount{{Source: cache, Target: "/cache"}}
	var exit *sandbox.ExitError
	if err := r.Run(t.Context(), p); !errors.As(err, &exit) || exit.Code != 3 {
		t.Error(err)
	}
	if got := strings.Join(names(t, dir), " "); got != ". c c/g c/h" {
		t.Error(got)
	}
}

// TestInChrootOpenSource has a source that is a descriptor.
func TestInChrootOpenSource(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	cache := newSource(t)
	f, err := os.Open(cache)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := shell(root, "echo x > /cache/x")
	p.Mounts = []sandbox.Mount{{Source: fmt.Sprintf("/proc/self/fd/%d", f.Fd()), Target: "/cache"}}
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if got := strings.Join(names(t, filepath.Dir(cache)), " "); got != ". source source/f source/x" {
		t.Error(got)
	}
	// Somebody puts something else there.
	if err := errors.Join(os.Rename(cache, cache+"2"), os.Symlink("/etc", cache)); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if target, err := os.Readlink(cache); err != nil || target != "/etc" {
		t.Errorf("%q, %v", target, err)
	}
}
