package await

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestFile makes a file while it is waited for, with the directories above
// it there or not, moved into place or made.
func TestFile(t *testing.T) {
	t.Parallel()
	mkdir := func(t *testing.T, dir string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, name string) {
		t.Helper()
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		before, appear func(t *testing.T, root string)
		waits          bool
	}{
		"there": {before: func(t *testing.T, root string) {
			mkdir(t, filepath.Join(root, "a", "b"))
			write(t, filepath.Join(root, "a", "b", "ready"))
		}},
		"in a directory": {
			before: func(t *testing.T, root string) { mkdir(t, filepath.Join(root, "a", "b")) },
			appear: func(t *testing.T, root string) { write(t, filepath.Join(root, "a", "b", "ready")) },
			waits:  true,
		},
		"with its directories": {
			appear: func(t *testing.T, root string) {
				mkdir(t, filepath.Join(root, "a", "b"))
				write(t, filepath.Join(root, "a", "b", "ready"))
			},
			waits: true,
		},
		"in a directory that is moved into place": {
			before: func(t *testing.T, root string) { mkdir(t, filepath.Join(root, "a")) },
			appear: func(t *testing.T, root string) {
				mkdir(t, filepath.Join(root, "new", "b"))
				write(t, filepath.Join(root, "new", "b", "ready"))
				if err := os.Rename(filepath.Join(root, "new", "b"), filepath.Join(root, "a", "b")); err != nil {
					t.Error(err)
				}
			},
			waits: true,
		},
		"in a directory that takes the place of another": {
			before: func(t *testing.T, root string) { mkdir(t, filepath.Join(root, "a", "b")) },
			appear: func(t *testing.T, root string) {
				if err := os.RemoveAll(filepath.Join(root, "a")); err != nil {
					t.Error(err)
				}
				mkdir(t, filepath.Join(root, "a", "b"))
				write(t, filepath.Join(root, "a", "b", "ready"))
			},
			waits: true,
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if c.before != nil {
				c.before(t, root)
			}
			waited := false
			err := File(t.Context(), filepath.Join(root, "a", "b", "ready"), time.Hour, func(time.Duration) {
				if waited = true; c.appear != nil {
					c.appear(t, root)
				}
			})
			if err != nil || waited != c.waits {
				t.Errorf("waited is %t, error %v", waited, err)
			}
		})
	}
}

func TestFileEnds(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "ready")
	if err := File(t.Context(), name, time.Nanosecond, func(time.Duration) {}); err == nil || !strings.Contains(err.Error(), name+" did not appear within 1ns") {
		t.Errorf("after the limit: %v", err)
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := File(ctx, name, time.Hour, func(time.Duration) { cancel(stop) }); !errors.Is(err, stop) {
		t.Errorf("after the end of the context: %v", err)
	}
	// A file in the place of a directory can't become one.
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := File(t.Context(), filepath.Join(name, "x"), time.Hour, func(time.Duration) { t.Error("waits") }); err == nil {
		t.Error("a file below a file was found")
	}
}
