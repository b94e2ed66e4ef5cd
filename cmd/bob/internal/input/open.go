package input

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

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// Files are an input that has been opened.
type Files struct {
	Dockerfile *dockerfile.File
	// Context is the directory of the context. It is "" without a context.
	Context string
	// Ignore are the patterns of the ignore file.
	Ignore []string

	close func() error
}

// Close ends the use of the context.
func (f *Files) Close() error { return f.close() }

// Open reads the Dockerfile and the ignore file, and unpacks a context that is a tar
// into scratch. It fetches remote files by elsewhere.
func (in *Input) Open(ctx context.Context, scratch string, elsewhere Opener) (_ *Files, err error) {
	src := &Files{Context: in.context, close: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, src.close())
		}
	}()
	in.stdin = bounded.Interruptible(ctx, in.stdin)
	switch {
	case in.context == stdinName:
		if src.Context, err = in.unpack(ctx, filepath.Join(scratch, "context")); err != nil {
			return nil, fmt.Errorf("context from standard input: %w", err)
		}
	case in.Remote != nil:
		if src.Context, src.close, err = elsewhere(ctx, in.Remote); err != nil {
			src.close = func() error { return nil }
			return nil, fmt.Errorf("context %s: %w", fetch.Redact(in.context), err)
		}
		if src.Context, err = in.arrived(ctx, src.Context, filepath.Join(scratch, "context")); err != nil {
			return nil, fmt.Errorf("context %s: %w", fetch.Redact(in.context), err)
		}
	}
	name, text, err := in.readDockerfile(ctx, src.Context, elsewhere)
	if err != nil {
		return nil, err
	}
	if src.Dockerfile, err = dockerfile.Parse(name, bytes.NewReader(text)); err != nil {
		return nil, err
	}
	src.Ignore, err = in.readIgnore(ctx, src.Context)
	return src, err
}

// unpack extracts the tar on standard input into dir. If standard input is no tar, it
// is a Dockerfile without a context, as in docker build; unpack then returns "" for the
// directory.
func (in *Input) unpack(ctx context.Context, dir string) (string, error) {
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
	return dir, filecopy.UnpackContext(ctx, stdin, dir, bounded.NewBudget(in.MaxUnpacked))
}

// dockerfileURL reports whether the Dockerfile lies apart from the context at a URL.
func (in *Input) dockerfileURL() bool { return fetch.CheckURL(in.dockerfile) == nil }

// place returns where the Dockerfile is. Either dir is a directory and name lies in it,
// or dir is "" and name is the path of any file that the user has named. If the context
// is a directory the path is relative to the working directory, as in docker build; if
// it is a tar, the Dockerfile lies in it. ok is false for standard input and for a URL.
func (in *Input) place(contextDir string) (dir, name string, ok bool) {
	switch {
	case in.dockerfile == stdinName, in.dockerfileURL():
		return "", "", false
	case in.within != "":
		return in.within, in.dockerfile, true
	case in.dockerfile == "":
		return contextDir, "Dockerfile", true
	case in.Remote != nil && filepath.IsAbs(in.dockerfile):
		return "", in.dockerfile, true // a file of this machine, as in docker build
	case in.inside():
		return contextDir, filepath.Clean("/" + in.dockerfile)[1:], true
	}
	return "", in.dockerfile, true
}

func (in *Input) readDockerfile(ctx context.Context, contextDir string, elsewhere Opener) (name string, text []byte, err error) {
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

// readIgnore returns the patterns of the ignore file. It is the file called like the
// Dockerfile, with .dockerignore behind the name, or else the context's .dockerignore.
func (in *Input) readIgnore(ctx context.Context, contextDir string) ([]string, error) {
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
	return dirIgnore(ctx, contextDir)
}

// dirIgnore returns the patterns of the .dockerignore in a directory. Without that file
// there are no patterns.
func dirIgnore(ctx context.Context, dir string) ([]string, error) {
	patterns, _, err := ignoreFile(ctx, dir, dockerignore)
	return patterns, err
}

const (
	dockerignore = ".dockerignore"
	maxIgnore    = 4 << 20 // bytes in such a file
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

// fetchDockerfile reads the Dockerfile at a URL.
func fetchDockerfile(ctx context.Context, address string, elsewhere Opener) (name string, text []byte, err error) {
	name = fetch.Redact(address)
	d := &dockerfile.Download{URL: address, Name: "Dockerfile"}
	dir, closeIt, err := elsewhere(ctx, d)
	if err != nil {
		return "", nil, fmt.Errorf("-f %s: %w", name, err)
	}
	text, err = readIn(ctx, dir, d.Name, dockerfile.MaxSize)
	return name, text, errors.Join(err, closeIt())
}

// arrived returns the directory with the files of a context that was fetched to
// dir: an archive is unpacked to scratch, any other single file is a Dockerfile.
func (in *Input) arrived(ctx context.Context, dir, scratch string) (string, error) {
	if _, ok := in.Remote.(*dockerfile.Download); !ok {
		return dir, nil
	}
	f, err := os.Open(filepath.Join(dir, dockerfile.ContextFileName))
	if err != nil {
		return "", err
	}
	defer f.Close()
	header := make([]byte, filecopy.HeaderSize)
	n, err := io.ReadFull(f, header)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	if !snapshot.IsArchive(header[:n]) {
		in.dockerfile, in.name = dockerfile.ContextFileName, fetch.Redact(in.context)
		return dir, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return "", err
	}
	return scratch, filecopy.UnpackContext(ctx, f, scratch, bounded.NewBudget(in.MaxUnpacked))
}
