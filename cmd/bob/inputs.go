package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// inputs is what a build reads: the context, and the Dockerfile.
type inputs struct {
	context    string // a directory, or - for a tar on stdin
	dockerfile string // a path, a URL, or - for stdin; empty for the context's Dockerfile
	within     string // a directory that the Dockerfile may not lead out of, if there is one
	name       string // of the Dockerfile in messages, where that isn't its path
	stdin      io.Reader
	// maxUnpacked is what a context that is an archive may have unpacked, in bytes; 0 is
	// no limit.
	maxUnpacked int64
	remote      dockerfile.Source // of a context at an address; nil otherwise
}

// opener fetches what lies at an address and shows it at the directory that it
// returns, until the function is called that it also returns.
type opener func(context.Context, dockerfile.Source) (dir string, closeIt func() error, err error)

// inside reports whether the files come from elsewhere: the Dockerfile is one of
// them, and no link among them may lead out.
func (in *inputs) inside() bool { return in.context == stdinName || in.remote != nil }

// sources are inputs as the build takes them.
type sources struct {
	file    *dockerfile.File
	context string
	ignore  []string
	close   func() error // ends the use of context
}

const stdinName = "-"

// inputs checks the arguments of bob build.
func (cfg *buildConfig) inputs(ctx context.Context, args []string) (*inputs, error) {
	if len(args) != 1 {
		return nil, cli.Errorf("bob build takes one argument, the build context (a directory, a URL, or - for a tar on standard input); got %d", len(args))
	}
	in := &inputs{context: args[0], dockerfile: string(cfg.file), stdin: cfg.stdin}
	if in.context == stdinName {
		if in.dockerfile == stdinName {
			return nil, cli.Errorf("the context and the Dockerfile can't both be read from standard input")
		}
		return in, nil
	}
	fi, err := os.Stat(in.context)
	if err == nil && fi.IsDir() {
		return in, nil // whatever its name looks like
	}
	if in.remote, err = cfg.remoteContext(ctx, in.context); err != nil {
		return nil, cli.Errorf("context %s: %v", fetch.Redact(in.context), err)
	}
	if in.remote != nil {
		return in, nil
	}
	fi, err = os.Stat(in.context)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, cli.Errorf("context %s: no such directory", in.context)
	case err != nil:
		return nil, cli.Errorf("context: %v", err)
	case !fi.IsDir():
		return nil, cli.Errorf("context %s: not a directory", in.context)
	}
	return in, nil
}

// open reads the Dockerfile and the ignore file, and unpacks a context that is
// a tar into scratch. What lies elsewhere is fetched by elsewhere.
func (in *inputs) open(ctx context.Context, scratch string, elsewhere opener) (_ *sources, err error) {
	src := &sources{context: in.context, close: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, src.close())
		}
	}()
	in.stdin = bounded.Interruptible(ctx, in.stdin)
	switch {
	case in.context == stdinName:
		if src.context, err = in.unpack(ctx, filepath.Join(scratch, "context")); err != nil {
			return nil, fmt.Errorf("context from standard input: %w", err)
		}
	case in.remote != nil:
		if src.context, src.close, err = elsewhere(ctx, in.remote); err != nil {
			src.close = func() error { return nil }
			return nil, fmt.Errorf("context %s: %w", fetch.Redact(in.context), err)
		}
		if src.context, err = in.arrived(ctx, src.context, filepath.Join(scratch, "context")); err != nil {
			return nil, fmt.Errorf("context %s: %w", fetch.Redact(in.context), err)
		}
	}
	name, text, err := in.readDockerfile(ctx, src.context, elsewhere)
	if err != nil {
		return nil, err
	}
	if src.file, err = dockerfile.Parse(name, bytes.NewReader(text)); err != nil {
		return nil, err
	}
	src.ignore, err = in.readIgnore(ctx, src.context)
	return src, err
}

// unpack extracts the tar on standard input into dir. What is no tar there is a
// Dockerfile that does without a context, as in docker build; unpack then
// returns "" for the directory.
func (in *inputs) unpack(ctx context.Context, dir string) (string, error) {
	stdin := bufio.NewReaderSize(in.stdin, filecopy.HeaderSize)
	header, err := stdin.Peek(filecopy.HeaderSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	in.stdin = stdin
	if in.dockerfile == "" && !snapshot.IsArchive(header) {
		in.dockerfile, in.context = stdinName, ""
		return "", nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, filecopy.UnpackContext(ctx, stdin, dir, bounded.NewBudget(in.maxUnpacked))
}

// dockerfileURL reports whether the Dockerfile lies apart from the context at a URL.
func (in *inputs) dockerfileURL() bool { return fetch.CheckURL(in.dockerfile) == nil }

// place returns where the Dockerfile is: its name in dir, which it may not lead out
// of, or with "" for dir the path of a file that the user has named, whatever it is.
// With a directory as context that is relative to the working directory, as in docker
// build; with a tar it lies inside. Standard input and a URL are no place.
func (in *inputs) place(contextDir string) (dir, name string, ok bool) {
	switch {
	case in.dockerfile == stdinName, in.dockerfileURL():
		return "", "", false
	case in.within != "":
		return in.within, in.dockerfile, true
	case in.dockerfile == "":
		return contextDir, "Dockerfile", true
	case in.remote != nil && filepath.IsAbs(in.dockerfile):
		return "", in.dockerfile, true // a file of this machine, as in docker build
	case in.inside():
		return contextDir, filepath.Clean("/" + in.dockerfile)[1:], true
	}
	return "", in.dockerfile, true
}

func (in *inputs) readDockerfile(ctx context.Context, contextDir string, elsewhere opener) (name string, text []byte, err error) {
	if in.dockerfileURL() {
		return fetchDockerfile(ctx, in.dockerfile, elsewhere)
	}
	dir, name, ok := in.place(contextDir)
	switch {
	case !ok:
		name = "Dockerfile"
		if text, err = bounded.ReadAll(ctx, in.stdin, dockerfile.MaxSize); err != nil {
			err = fmt.Errorf("the Dockerfile on standard input: %w", err)
		}
		return name, text, err
	case dir == "":
		text, err = bounded.ReadFile(ctx, name, dockerfile.MaxSize)
	default:
		text, err = readIn(ctx, dir, name, dockerfile.MaxSize)
		if !in.inside() {
			name = filepath.Join(dir, name)
		}
	}
	if in.name != "" {
		name = in.name
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, fmt.Errorf("%s: no such file; name the Dockerfile with -f", name)
	case err != nil:
		return "", nil, fmt.Errorf("%s: %w", name, reason(err))
	}
	return name, text, nil
}

// readIn returns the content of a regular file in dir that no link leads out of.
func readIn(ctx context.Context, dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return bounded.ReadRegular(ctx, root, name, limit)
}

// reason returns err without the operation and the path, which the caller names.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// readIgnore returns the patterns of the ignore file: that of the Dockerfile's
// own name if there is one, else the context's .dockerignore.
func (in *inputs) readIgnore(ctx context.Context, contextDir string) ([]string, error) {
	if contextDir == "" {
		return nil, nil
	}
	if dir, name, ok := in.place(contextDir); ok {
		if dir == "" {
			dir, name = filepath.Split(name)
			dir = filepath.Clean(dir)
		}
		if patterns, found, err := ignoreFile(ctx, dir, name+dockerignore); found || err != nil {
			return patterns, err
		}
	}
	patterns, _, err := ignoreFile(ctx, contextDir, dockerignore)
	return patterns, err
}

const (
	dockerignore = ".dockerignore"
	maxIgnore    = 4 << 20 // bytes in such a file
	maxConfig    = 4 << 20 // and in one of credentials and settings
)

// ignoreFile returns the patterns of the file called name in dir, and whether it is
// there.
func ignoreFile(ctx context.Context, dir, name string) (patterns []string, found bool, err error) {
	text, err := readIn(ctx, dir, name, maxIgnore)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		patterns, err = filecopy.ReadIgnore(bytes.NewReader(text))
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", name, reason(err))
	}
	return patterns, true, nil
}
