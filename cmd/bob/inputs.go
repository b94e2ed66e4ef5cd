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
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
)

// inputs is what a build reads: the context, and the Dockerfile.
type inputs struct {
	context    string // a directory, or - for a tar on stdin
	dockerfile string // a path, a URL, or - for stdin; empty for the context's Dockerfile
	name       string // of the Dockerfile in messages, where that isn't its path
	stdin      io.Reader
	remote     dockerfile.Source // of a context at an address; nil otherwise
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
func (cfg *buildConfig) inputs(args []string) (*inputs, error) {
	if len(args) != 1 {
		return nil, usageErrorf("bob build takes one argument, the build context (a directory, a URL, or - for a tar on standard input); got %d", len(args))
	}
	in := &inputs{context: args[0], dockerfile: string(cfg.file), stdin: cfg.stdin}
	if in.context == stdinName {
		if in.dockerfile == stdinName {
			return nil, usageErrorf("the context and the Dockerfile can't both be read from standard input")
		}
		return in, nil
	}
	fi, err := os.Stat(in.context)
	if err == nil && fi.IsDir() {
		return in, nil // whatever its name looks like
	}
	if in.remote, err = cfg.remoteContext(in.context); err != nil {
		return nil, usageErrorf("context %s: %v", fetch.Redact(in.context), err)
	}
	if in.remote != nil {
		return in, nil
	}
	fi, err = os.Stat(in.context)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, usageErrorf("context %s: no such directory", in.context)
	case err != nil:
		return nil, usageErrorf("context: %v", err)
	case !fi.IsDir():
		return nil, usageErrorf("context %s: not a directory", in.context)
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
	src.ignore, err = in.readIgnore(src.context)
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
	return dir, filecopy.UnpackContext(ctx, stdin, dir)
}

// path returns where the Dockerfile is, "" if on standard input or at a URL. With a
// directory as context it is relative to the working directory, as in docker
// build; with a tar it lies inside.
func (in *inputs) path(contextDir string) string {
	switch {
	case in.dockerfile == stdinName, in.dockerfileURL():
		return ""
	case in.dockerfile == "":
		return filepath.Join(contextDir, "Dockerfile")
	case in.remote != nil && filepath.IsAbs(in.dockerfile):
		return in.dockerfile // a file of this machine, as in docker build
	case in.inside():
		return filepath.Join(contextDir, filepath.Clean("/"+in.dockerfile))
	default:
		return in.dockerfile
	}
}

// dockerfileURL reports whether the Dockerfile lies apart from the context at a URL.
func (in *inputs) dockerfileURL() bool { return fetch.CheckURL(in.dockerfile) == nil }

func (in *inputs) readDockerfile(ctx context.Context, contextDir string, elsewhere opener) (name string, text []byte, err error) {
	if in.dockerfileURL() {
		return fetchDockerfile(ctx, in.dockerfile, elsewhere)
	}
	path := in.path(contextDir)
	if path == "" {
		text, err = io.ReadAll(in.stdin)
		return "Dockerfile", text, err
	}
	f, err := in.openFile(contextDir, path)
	name = path
	if in.inside() && strings.HasPrefix(path, contextDir) {
		name, _ = filepath.Rel(contextDir, path)
	}
	if in.name != "" {
		name = in.name
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("%s: no such file; name the Dockerfile with -f", name)
	}
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	text, err = io.ReadAll(f)
	return name, text, err
}

// openFile opens a file beside or in the context. What came as a tar is opened
// inside its directory only: a link in it may point anywhere.
func (in *inputs) openFile(contextDir, path string) (*os.File, error) {
	if !in.inside() || !strings.HasPrefix(path, contextDir+"/") {
		return os.Open(path)
	}
	root, err := os.OpenRoot(contextDir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	rel, err := filepath.Rel(contextDir, path)
	if err != nil {
		return nil, err
	}
	return root.Open(rel)
}

// readIgnore returns the patterns of the ignore file: that of the Dockerfile's
// own name if there is one, else the context's .dockerignore.
func (in *inputs) readIgnore(contextDir string) ([]string, error) {
	if contextDir == "" {
		return nil, nil
	}
	candidates := []string{filepath.Join(contextDir, ".dockerignore")}
	if path := in.path(contextDir); path != "" {
		candidates = []string{path + ".dockerignore", candidates[0]}
	}
	for _, name := range candidates {
		f, err := in.openFile(contextDir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		patterns, err := filecopy.ReadIgnore(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return patterns, nil
	}
	return nil, nil
}
