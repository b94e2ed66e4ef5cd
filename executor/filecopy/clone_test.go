package filecopy_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/executor/filecopy"
)

func TestClone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, `odd[*?]\name`), filepath.Join(dir, "to")
	err := errors.Join(
		os.Mkdir(from, 0o700), os.Mkdir(from+"2", 0o700),
		os.WriteFile(filepath.Join(from, "f"), []byte("x"), 0o600),
		os.Symlink("/etc", filepath.Join(from, "l")), os.Chmod(filepath.Join(from, "f"), 0o640),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := filecopy.Clone(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if err := filecopy.Clone(t.Context(), filepath.Join(from, "f"), filepath.Join(to, "g")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "-rw-r-----", "g": "-rw-r-----", "l": "Lrwxrwxrwx"} {
		if info, err := os.Lstat(filepath.Join(to, name)); err != nil || info.Mode().String() != want {
			t.Errorf("%s is %v, %v, want %s", name, info, err, want)
		}
	}
	if names, err := os.ReadDir(to); err != nil || len(names) != 3 {
		t.Errorf("%v, %v", names, err)
	}
}
