package bounded_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/bounded"
	"golang.org/x/sys/unix"
)

func TestReadAll(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{"": true, "1234": true, "12345": false} {
		got, err := bounded.ReadAll(t.Context(), strings.NewReader(text), 4)
		if want && (string(got) != text || err != nil) {
			t.Errorf("%q: got %q, %v", text, got, err)
		}
		var e *bounded.LimitError
		if !want && (!errors.As(err, &e) || e.Limit != 4 || err.Error() != "it is larger than the 4 bytes allowed") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A reading ends with its context, whatever it waits for.
func TestReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // the goroutine that was left behind
		if f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = f.Close()
		}
	})
	pipe, w := io.Pipe()
	defer w.Close()
	reason := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(t.Context())
	for name, read := range map[string]func() ([]byte, error){
		"fifo":     func() ([]byte, error) { return bounded.ReadFile(ctx, fifo, 1) },
		"pipe":     func() ([]byte, error) { return bounded.ReadAll(ctx, pipe, 1) },
		"endless":  func() ([]byte, error) { return bounded.ReadFile(ctx, "/dev/zero", 1<<62) },
		"is ended": func() ([]byte, error) { <-ctx.Done(); return bounded.ReadFile(ctx, "/dev/null", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := read(); !errors.Is(err, reason) {
				t.Errorf("got %v", err)
			}
		})
	}
	go func() { cancel(reason) }()
}

// What a user names may be anything, what is named by default a regular file in its
// directory.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(filepath.Join(dir, "sub/file"), []byte("text"), 0o600),
		os.WriteFile(filepath.Join(dir, "large"), []byte("12345"), 0o600),
		os.Symlink("sub/file", filepath.Join(dir, "link")),
		os.Symlink("/dev/zero", filepath.Join(dir, "zero")),
		os.Symlink("../"+filepath.Base(dir)+"/large", filepath.Join(dir, "out")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, any, regular string }{
		{"sub/file", "text", "text"},
		{"link", "text", "text"},
		{"large", "larger than the 4 bytes allowed", "large: it is larger than the 4 bytes allowed"},
		{"zero", "larger than the 4 bytes allowed", "zero: it is a link that leads out of its directory"},
		{"out", "larger than the 4 bytes allowed", "out: it is a link that leads out of its directory"},
		{"sub", "is a directory", "sub: it is a directory, not a regular file"},
		{"fifo", "", "fifo: it is a fifo, not a regular file"},
		{"none", "no such file", "none: no such file"},
		{"link/x", "not a directory", "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			says := func(how string, data []byte, err error, want string) {
				if err != nil && !strings.Contains(err.Error(), want) || err == nil && string(data) != want {
					t.Errorf("%s: got %q, %v; want %q", how, data, err, want)
				}
				if tt.name == "none" != errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v", how, err)
				}
			}
			data, err := bounded.ReadRegular(t.Context(), root, tt.name, 4)
			says("regular", data, err, tt.regular)
			if tt.any != "" {
				data, err = bounded.ReadFile(t.Context(), filepath.Join(dir, tt.name), 4)
				says("any", data, err, tt.any)
			}
		})
	}
}
