package filecopy_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
)

// TestHostileLinks looks for hostile paths, and makes directories at them.
func TestHostileLinks(t *testing.T) {
	t.Parallel()
	for _, c := range pathwalktest.Cases(pathwalk.MaxLinks) {
		above := t.TempDir()
		root := filepath.Join(above, "root")
		must(t, os.Mkdir(root, 0o755))
		c.Lay(t, root)
		want, err := os.Stat(filepath.Join(root, c.Want))
		must(t, err)
		f, err := filecopy.OpenInRoot(root, c.Path)
		if wrong := leadsElsewhere(f, err, want, c.Err); wrong != "" {
			t.Errorf("%s: looking: %s, want %q, %v", c, wrong, c.Want, c.Err)
		}
		err = filecopy.MakeDir(root, c.Path, filecopy.Options{Owner: self()})
		for _, line := range list(t, above) {
			if !strings.HasPrefix(line, "root/") {
				t.Errorf("%s: made %s outside", c, line)
			}
		}
		switch { // what is missing is made
		case c.Err == nil && err != nil, c.Err != nil && !errors.Is(c.Err, unix.ENOENT) && !errors.Is(err, c.Err):
			t.Errorf("%s: making: %v, want %v", c, err, c.Err)
		}
	}
}

// leadsElsewhere tells what is wrong with what was opened, if something is.
func leadsElsewhere(f *os.File, err error, want os.FileInfo, wantErr error) string {
	if err != nil {
		if wantErr == nil || errors.Is(wantErr, unix.ELOOP) && !errors.Is(err, wantErr) {
			return err.Error()
		}
		if !errors.Is(wantErr, unix.ELOOP) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, wantErr) {
			return err.Error()
		}
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || wantErr != nil || !os.SameFile(fi, want) {
		return "it is there"
	}
	return ""
}
