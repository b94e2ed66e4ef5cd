package filecopy_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// expectChanged checks that both readers of s notice that file isn't as it was.
func expectChanged(t *testing.T, s *filecopy.Selection, file string) {
	t.Helper()
	_, digest := s.Digest(t.Context())
	for op, err := range map[string]error{
		"Digest": digest,
		"CopyTo": s.CopyTo(t.Context(), t.TempDir(), "/", filecopy.Options{Owner: self()}),
	} {
		if !errors.Is(err, filecopy.ErrChanged) || !strings.Contains(err.Error(), `"`+file+`"`) {
			t.Errorf("%s: %v, want ErrChanged naming %s", op, err, file)
		}
	}
}

// TestChanged tables what may happen to a context between selection and use.
func TestChanged(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(dir string) error
		file   string
	}{
		{"grown", func(dir string) error { return os.WriteFile(dir+"/d/sub/f", []byte("longer than before"), 0o600) }, "d/sub/f"},
		{"shrunk", func(dir string) error { return os.Truncate(dir+"/d/sub/f", 1) }, "d/sub/f"},
		{"touched", func(dir string) error { return os.Chtimes(dir+"/d/sub/f", stamp, stamp) }, "d/sub/f"},
		{"removed", func(dir string) error { return os.Remove(dir + "/d/sub/f") }, "d/sub/f"},
		{"made a link", func(dir string) error {
			return errors.Join(os.Remove(dir+"/d/sub/f"), os.Symlink("/etc/passwd", dir+"/d/sub/f"))
		}, "d/sub/f"},
		{"made a directory", func(dir string) error {
			return errors.Join(os.Remove(dir+"/d/sub/f"), os.Mkdir(dir+"/d/sub/f", 0o700))
		}, "d/sub/f"},
		{"directory removed", func(dir string) error { return os.RemoveAll(dir + "/d/sub") }, "d/sub"},
		{"directory made a link", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d/sub"), os.Symlink("/etc", dir+"/d/sub"))
		}, "d/sub"},
		{"source made a link", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d"), os.Symlink("/etc", dir+"/d"))
		}, "d"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src := build(t, "d/sub/f=before")
			s := pick(t, open(t, src), "d")
			must(t, tt.change(src))
			expectChanged(t, s, tt.file)
		})
	}
}

// TestChangesMeanwhile reads a context while its files grow, shrink, go, and turn into
// links, fifos and directories. A copy that succeeds is what the digest says; what
// fails says that something changed.
func TestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	dir := build(t, "d/keep=kept", "d/sub/keep=kept")
	tree := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var changing sync.WaitGroup
	for n, name := range []string{"d/a", "d/b", "d/sub/a", "d/sub/b"} {
		changing.Go(func() { keepChanging(ctx, t, filepath.Join(dir, name), uint64(n)) })
	}
	round := func() error {
		s, err := tree.Select(t.Context(), filecopy.Source{Path: "d"})
		if err != nil {
			return err
		}
		want, err := s.Digest(t.Context())
		if err != nil {
			return err
		}
		root := t.TempDir()
		if err := s.CopyTo(t.Context(), root, "/d", filecopy.Options{Owner: self()}); err != nil {
			return err
		}
		if got := digestOf(t, root, false, "d"); got != want {
			t.Errorf("the copy has the digest %s, what was read %s:\n%s", got, want, strings.Join(list(t, root), "\n"))
		}
		return nil
	}
	copied := 0
	for range 100 {
		switch err := round(); {
		case err == nil:
			copied++
		case !errors.Is(err, filecopy.ErrChanged):
			t.Errorf("not told as a change: %v", err)
		}
	}
	cancel()
	changing.Wait()
	if err := round(); err != nil {
		t.Errorf("what changes no more: %v", err)
	}
	t.Logf("%d of 100 copies succeeded", copied)
}

// keepChanging makes the file something else until ctx ends. Of the same size it is
// never with another content, which nobody could see.
func keepChanging(ctx context.Context, t *testing.T, name string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	for ctx.Err() == nil {
		size := 1 + r.IntN(200<<10)
		text := bytes.Repeat([]byte{byte(size)}, size)
		var err error
		switch r.IntN(7) {
		case 0:
			err = os.Remove(name)
		case 1:
			err = errors.Join(os.RemoveAll(name), os.Symlink("keep", name))
		case 2:
			err = errors.Join(os.RemoveAll(name), unix.Mkfifo(name, 0o600))
		case 3:
			err = errors.Join(os.RemoveAll(name), os.MkdirAll(filepath.Join(name, "in"), 0o700))
		case 4:
			err = errors.Join(os.RemoveAll(name), os.Link(filepath.Join(filepath.Dir(name), "keep"), name))
		default:
			err = errors.Join(os.RemoveAll(name), os.WriteFile(name, text, 0o600))
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("change %s: %v", name, err)
			return
		}
	}
}

// TestSwappedDuringCopy copies while directories of the tree and of the image
// are exchanged with links to a place outside: nothing of it is read or written.
func TestSwappedDuringCopy(t *testing.T) {
	t.Parallel()
	outside := build(t, "d/f=secret")
	src := build(t, "t/d/f=plain", "t/e -> "+outside+"/d", "t/g/f=plain")
	root := build(t, "x/d/old", "x/e -> "+outside+"/d")
	swap := func(ctx context.Context, dir string) {
		d, e := filepath.Join(dir, "d"), filepath.Join(dir, "e")
		for ctx.Err() == nil {
			err := unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, e, unix.RENAME_EXCHANGE)
			if err != nil && !errors.Is(err, unix.ENOENT) { // a copy is replacing one of them
				t.Errorf("exchange: %v", err)
				return
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var swappers sync.WaitGroup
	swappers.Go(func() { swap(ctx, filepath.Join(src, "t")) })
	swappers.Go(func() { swap(ctx, filepath.Join(root, "x")) })
	tree := open(t, src)
	for range 50 {
		for _, source := range []string{"t", "t/d", "t/e"} {
			s, err := tree.Select(ctx, filecopy.Source{Path: source})
			if err != nil {
				continue // a link out of the tree
			}
			// Each may fail or not; what counts is what it touched.
			_, _ = s.Digest(ctx)
			_ = s.CopyTo(ctx, root, "/x/", filecopy.Options{Owner: self()})
			_ = s.CopyTo(ctx, root, "/x/d/", filecopy.Options{Owner: self()})
			_ = filecopy.WriteFile(ctx, root, "/x/d/", "h", nil, filecopy.Options{})
			_ = filecopy.MakeDir(root, "/x/e/made", filecopy.Options{})
		}
	}
	cancel()
	swappers.Wait()
	if got := list(t, outside); !slices.Equal(got, []string{"d/", "d/f=secret"}) {
		t.Errorf("outside is now %q", got)
	}
	for _, l := range list(t, root) {
		if strings.Contains(l, "secret") && !strings.Contains(l, "->") {
			t.Errorf("read from outside: %q", l)
		}
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	tree := open(t, build(t, "a/f", "b/f"))
	s := pick(t, tree, ".")
	cancel()
	_, selecting := tree.Select(ctx, filecopy.Source{Path: "."})
	_, digesting := s.Digest(ctx)
	for op, err := range map[string]error{
		"Select": selecting, "Digest": digesting,
		"CopyTo":    s.CopyTo(ctx, t.TempDir(), "/", filecopy.Options{}),
		"WriteFile": filecopy.WriteFile(ctx, t.TempDir(), "/f", "f", nil, filecopy.Options{}),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// TestDeepTree copies more levels than a path can name.
func TestDeepTree(t *testing.T) {
	t.Parallel()
	const levels, name = 300, "a-directory-name"
	src, root := t.TempDir(), t.TempDir()
	fd, err := unix.Open(src, unix.O_RDONLY, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	s := pick(t, open(t, src), ".")
	must(t, s.CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	want, err := s.Digest(t.Context())
	must(t, err)
	got, err := pick(t, open(t, root), ".").Digest(t.Context())
	must(t, err)
	if got != want {
		t.Error("the copy differs")
	}
}

// TestUnprivileged runs the tests that need no root as another user.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o755))
	program, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "test"), program, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o777))
	must(t, os.Chmod(filepath.Join(dir, "tmp"), 0o777))
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "test"), "-test.run=.")
	cmd.Dir = filepath.Join(dir, "tmp")
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"), "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as user 65534: %v\n%s", err, out)
	}
}
