package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An inputFile makes a file at path that isn't one to be read.
type inputFile func(path string) error

func linkTo(target string) inputFile {
	return func(path string) error { return os.Symlink(target, path) }
}

// ofSize makes a file that is all hole.
func ofSize(n int64) inputFile {
	return func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, n)) }
}

// TestInputsAreBounded: what bob reads of a context is a regular file in it, and what it
// reads at all has a bound that the error tells.
func TestInputsAreBounded(t *testing.T) {
	t.Parallel()
	large, fifo := ofSize(32<<20), inputFile(func(path string) error { return unix.Mkfifo(path, 0o600) })
	directory := inputFile(func(path string) error { return os.Mkdir(path, 0o700) })
	const out, tooLarge = "it is a link that leads out of its directory", "it is larger than the "
	for _, tt := range []struct {
		name string
		file string // made in the context, which is the working directory of args
		made inputFile
		args []string // DIR stands for the context
		want string
	}{
		{"Dockerfile out", "Dockerfile", linkTo("/dev/zero"), nil, "DIR/Dockerfile: " + out},
		{"Dockerfile above", "Dockerfile", linkTo("../x"), nil, "DIR/Dockerfile: " + out},
		{"Dockerfile large", "Dockerfile", large, nil, "DIR/Dockerfile: " + tooLarge + "16 MiB allowed"},
		{"Dockerfile fifo", "Dockerfile", fifo, nil, "DIR/Dockerfile: it is a fifo, not a regular file"},
		{"Dockerfile directory", "Dockerfile", directory, nil, "DIR/Dockerfile: it is a directory, not a regular file"},
		{"Dockerfile named", "x", linkTo("/dev/zero"), []string{"-f", "DIR/x"}, "DIR/x: " + tooLarge + "16 MiB allowed"},
		{"ignore file out", ".dockerignore", linkTo("/dev/zero"), nil, ".dockerignore: " + out},
		{"ignore file large", ".dockerignore", large, nil, ".dockerignore: " + tooLarge + "4 MiB allowed"},
		{"ignore file fifo", ".dockerignore", fifo, nil, ".dockerignore: it is a fifo, not a regular file"},
		{"own ignore file out", "Dockerfile.dockerignore", linkTo("/etc/passwd"), nil, "Dockerfile.dockerignore: " + out},
		{"own ignore file of a named one", "x.dockerignore", linkTo("/etc/passwd"), []string{"-f", "DIR/x"}, "x.dockerignore: " + out},
		{"ignore file of a named context", "c/.dockerignore", linkTo("/dev/zero"), []string{"--build-context", "c=DIR/c"}, ".dockerignore: " + out},
		{"fifo in a named context", "c/.dockerignore", fifo, []string{"--build-context", "c=DIR/c"}, ".dockerignore: it is a fifo"},
		{"ca-bundle", "x", linkTo("/dev/zero"), []string{"--ca-bundle", "DIR/x"}, "DIR/x: " + tooLarge + "16 MiB allowed"},
		{"registry-ca", "x", large, []string{"--registry-ca", "DIR/x"}, "DIR/x: " + tooLarge + "16 MiB allowed"},
		{"registry-cert", "x", large, []string{"--registry-cert", "DIR/x", "--registry-key", "DIR/x"}, "DIR/x: " + tooLarge + "16 MiB allowed"},
		{"registries-conf", "x", linkTo("/dev/zero"), []string{"--registries-conf", "DIR/x"}, "DIR/x: " + tooLarge + "4 MiB allowed"},
		{"ssh key", "x", linkTo("/dev/zero"), []string{"--ssh", "default=DIR/x"}, "DIR/x: " + tooLarge + "100 KiB allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, tt.file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), tt.made(path)); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"Dockerfile", "x"} {
				if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
					if err := os.WriteFile(filepath.Join(dir, name), []byte("FROM scratch\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			args := append([]string{"build", "--check", dir}, tt.args...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "DIR", dir)
			}
			err := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard)
			if want := strings.ReplaceAll(tt.want, "DIR", dir); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// What is named by default and by the environment is bounded too.
func TestSettingsAreBounded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	file := filepath.Join(dir, "config.json")
	if err := linkTo("/dev/zero")(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"build", "--check", dir}, nil, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), file+": it is larger than the 4 MiB allowed") {
		t.Errorf("bob build: %v", err)
	}
	if err := run(t.Context(), []string{"proxy", "--target-ref", "x", "--auth", "@/dev/zero"}, nil, io.Discard, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "/dev/zero: it is larger than the 4 MiB allowed") {
		t.Errorf("bob proxy: %v", err)
	}
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What the user names or hands over may be anything: links, pipes, what has no end.
func TestDockerfilesThatTheUserNames(t *testing.T) {
	t.Parallel()
	text := []byte("FROM scratch\n")
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(
		os.WriteFile(other, text, 0o600),
		os.Symlink(other, filepath.Join(dir, "link")),
		os.WriteFile(filepath.Join(dir, "inner"), text, 0o600),
		os.Symlink("inner", filepath.Join(dir, "Dockerfile")),
		unix.Mkfifo(fifo, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	go func() { _ = os.WriteFile(fifo, text, 0o600) }() // waits for its reader
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.Write(text); errors.Join(err, w.Close()) != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args  []string
		stdin io.Reader
		want  string // "" is success
	}{
		"link within":      {[]string{dir}, nil, ""},
		"link out":         {[]string{"-f", dir + "/link", dir}, nil, ""},
		"fifo":             {[]string{"-f", fifo, dir}, nil, ""},
		"standard input":   {[]string{"-f", "-", dir}, bytes.NewReader(text), ""},
		"pipe":             {[]string{"-f", "/proc/self/fd/" + fdOf(r), dir}, nil, ""},
		"endless":          {[]string{"-f", "-", dir}, zeros{}, "the Dockerfile on standard input: it is larger than the 16 MiB allowed"},
		"endless, no tar":  {[]string{"-"}, io.MultiReader(strings.NewReader("x"), zeros{}), "the Dockerfile on standard input: it is larger than the 16 MiB allowed"},
		"endless and file": {[]string{"-f", "/dev/zero", dir}, nil, "/dev/zero: it is larger than the 16 MiB allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), append([]string{"build", "--check"}, tt.args...), tt.stdin, io.Discard, io.Discard)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func fdOf(f *os.File) string { return strconv.Itoa(int(f.Fd())) }

// TestWaitingForInputEnds: what bob waits for, it waits for until it is ended.
func TestWaitingForInputEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	silent, w := io.Pipe()
	defer w.Close()
	for name, args := range map[string][]string{
		"Dockerfile":          {"build", "--check", "-f", fifo, dir},
		"Dockerfile on stdin": {"build", "--check", "-f", "-", dir},
		"context on stdin":    {"build", "--check", "-"},
		"ca-bundle":           {"build", "--check", "--ca-bundle", fifo, dir},
		"registries.conf":     {"inspect", "--registries-conf", fifo, "x"},
		"credentials":         {"proxy", "--target-ref", "x", "--auth", "@" + fifo},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			ended := make(chan error)
			go func() { ended <- run(ctx, args, silent, io.Discard, io.Discard) }()
			cancel(&signalError{unix.SIGTERM})
			if err := <-ended; exitCode(err) != 128+int(unix.SIGTERM) {
				t.Errorf("got %v", err)
			}
		})
	}
}
