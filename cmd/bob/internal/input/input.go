// Package input opens what a build reads: the files of the context, and the Dockerfile
// with its ignore file. They come from a directory, from standard input or from an
// address. Since others made them, no link is followed out of them, and every read is
// bounded.
package input

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
)

// An Input names what a build reads. Use [New] or [Within].
type Input struct {
	// Remote is the source of a context at an address, nil for any other context.
	Remote dockerfile.Source
	// MaxUnpacked is the greatest unpacked size of a context that is an archive, in
	// bytes; 0 is no limit.
	MaxUnpacked int64

	context    string // a directory, or - for a tar on stdin
	dockerfile string // a path, a URL, or - for stdin; empty for the context's Dockerfile
	within     string // a directory in which the Dockerfile has to lie, if there is one
	name       string // of the Dockerfile in messages, where that isn't its path
	stdin      io.Reader
}

const stdinName = "-"

// New returns the input that the arguments of bob build name: a directory, an address
// or - for the context, and a path, a URL, - or nothing for the Dockerfile. Its errors
// are about the command line.
func New(context, dockerfile string, stdin io.Reader) (*Input, error) {
	in := &Input{context: context, dockerfile: dockerfile, stdin: stdin}
	if context == stdinName {
		if dockerfile == stdinName {
			return nil, cli.Errorf("the context and the Dockerfile can't both be read from standard input")
		}
		return in, nil
	}
	fi, err := os.Stat(context)
	if err == nil && fi.IsDir() {
		return in, nil // whatever its name looks like
	}
	remote, errRemote := remoteContext(context)
	switch {
	case errRemote != nil:
		return nil, cli.Errorf("context %s: %v", fetch.Redact(context), errRemote)
	case remote != nil:
		in.Remote = remote
		return in, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, cli.Errorf("context %s: no such directory", context)
	case err != nil:
		return nil, cli.Errorf("context: %v", err)
	}
	return nil, cli.Errorf("context %s: not a directory", context)
}

// Within returns the input of a directory as context and a Dockerfile in the directory
// root, which no link leads out of. Messages call the Dockerfile by name.
func Within(context, root, dockerfile, name string) *Input {
	return &Input{context: context, within: root, dockerfile: dockerfile, name: name, stdin: strings.NewReader("")}
}

// inside reports whether the files come from elsewhere. The Dockerfile is one of them
// then, and no link among them may lead out.
func (in *Input) inside() bool { return in.context == stdinName || in.Remote != nil }

// remoteContext returns what the address of the build context stands for, nil
// if it is no address.
func remoteContext(address string) (dockerfile.Source, error) {
	src, err := dockerfile.RemoteContext(address)
	if err != nil {
		return nil, err
	}
	switch src := src.(type) {
	case *dockerfile.Download:
		return src, fetch.CheckURL(src.URL)
	case *dockerfile.Repository:
		return src, nil
	case *dockerfile.Path, *dockerfile.Inline: // have no address
	}
	return nil, nil
}
