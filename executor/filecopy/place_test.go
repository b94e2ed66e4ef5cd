package filecopy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

func TestWriteFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		dest    string
		options filecopy.Options
		want    string
		mode    uint32
	}{
		{"/x", filecopy.Options{}, "x", 0o644},
		{"/x/", filecopy.Options{}, "x/name", 0o644},
		{"/there", filecopy.Options{Mode: chmod(t, "4755")}, "there/name", 0o4755},
		{"/x", filecopy.Options{Mode: chmod(t, "a+X,o=")}, "x", 0o640},
		{"/there/old", filecopy.Options{Owner: self()}, "there/old", 0o644},
		{"/link", filecopy.Options{}, "there/old", 0o644},
		{"/p/q/r", filecopy.Options{}, "p/q/r", 0o644},
	} {
		root := build(t, "there/old=a longer content", "link -> /there/old")
		must(t, filecopy.WriteFile(t.Context(), root, tt.dest, "name", []byte("text"), tt.options))
		content, err := os.ReadFile(filepath.Join(root, tt.want))
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(root, tt.want), &st))
		if string(content) != "text" || st.Mode != unix.S_IFREG|tt.mode {
			t.Errorf("%s: %s holds %q, mode %o", tt.dest, tt.want, content, st.Mode)
		}
	}
	err := filecopy.WriteFile(t.Context(), build(t, "d/name/"), "/d", "name", nil, filecopy.Options{})
	if err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("heredoc onto a directory: %v", err)
	}
}

func TestMakeDir(t *testing.T) {
	t.Parallel()
	needRoot(t)
	root := build(t, "there/", "file", "link -> ../../new/far", "loop -> loop")
	give(t, filepath.Join(root, "there"), 5, 0o700)
	owner := &filecopy.Owner{UID: 7, GID: 8}
	for dir, want := range map[string]map[string]string{
		"/there":      {"there": "0700 5:5 stamp"},
		"/there/a/b/": {"there": "0700 5:5 now", "there/a": "0755 7:8 now", "there/a/b": "0755 7:8 now"},
		"/link/x":     {"new": "0755 7:8 now", "new/far": "0755 7:8 now", "new/far/x": "0755 7:8 now"},
		"/":           {},
		"rel/../../a": {"a": "0755 7:8 now"},
	} {
		give(t, filepath.Join(root, "there"), 5, 0o700)
		must(t, filecopy.MakeDir(root, dir, filecopy.Options{Owner: owner}))
		for p, m := range want {
			if got := meta(t, filepath.Join(root, p)); got != m {
				t.Errorf("MakeDir(%q): %s is %s, want %s", dir, p, got, m)
			}
		}
	}
	for _, dir := range []string{"/file", "/file/x", "/loop/x"} {
		if err := filecopy.MakeDir(root, dir, filecopy.Options{}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("MakeDir(%q): %v", dir, err)
		}
	}
}

// TestLinkChains follows as many links as BuildKit does, wherever a path is resolved.
func TestLinkChains(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 40, 41, 100, 255, 256, 1000} {
		src := build(t, "end/f=text", "loop -> loop")
		at := "end"
		for i := range n {
			name := "l" + itoa(i)
			target := at
			if i%2 == 1 {
				target = "/" + at
			}
			must(t, os.Symlink(target, filepath.Join(src, name)))
			at = name
		}
		_, want := continuity.RootPath(src, at)
		tree := open(t, src)
		for what, err := range map[string]error{
			"a source": func() error {
				s, err := tree.Select(t.Context(), filecopy.Source{Path: at + "/f"})
				if err != nil {
					return err
				}
				return s.CopyTo(t.Context(), t.TempDir(), "/copied", filecopy.Options{Owner: self()})
			}(),
			"a destination": pick(t, tree, "end/f").CopyTo(t.Context(), src, at+"/g", filecopy.Options{Owner: self()}),
			"a directory":   filecopy.MakeDir(src, at+"/made", filecopy.Options{Owner: self()}),
			"a mount": func() error {
				f, err := filecopy.OpenInRoot(src, at+"/f")
				if err != nil {
					return err
				}
				return f.Close()
			}(),
		} {
			if (err == nil) != (want == nil) || err != nil && !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s behind %d links: %v, with BuildKit %v", what, n, err, want)
			}
		}
		if _, err := tree.Select(t.Context(), filecopy.Source{Path: "loop"}); !errors.Is(err, unix.ELOOP) {
			t.Errorf("a loop: %v", err)
		}
	}
}

// TestOpenInRoot opens files and directories, and nothing outside.
func TestOpenInRoot(t *testing.T) {
	t.Parallel()
	root := build(t, "d/f=text", "abs -> /d/f", "up -> ../../../d", "gone -> nowhere")
	for name, want := range map[string]string{"/": "/", "d": "/d", "/abs": "/d/f", "up/f": "/d/f", "../d": "/d", "gone": "", "d/f/x": "", "no": ""} {
		f, err := filecopy.OpenInRoot(root, name)
		if want == "" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		must(t, err)
		got, err := os.Readlink("/proc/self/fd/" + itoa(int(f.Fd())))
		must(t, err)
		must(t, f.Close())
		if got != filepath.Join(root, want) {
			t.Errorf("%s leads to %s, want %s", name, got, want)
		}
	}
}
