package filecopy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
