package source

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
)

// Options configure sources. Every field must be set unless it says otherwise.
type Options struct {
	Registry *registry.Client
	// Store and Fetch may be nil if only configs of images are read.
	Store    *snapshot.Store
	Fetch    *fetch.Client
	Progress *event.Reporter
	// Jobs bounds the layers that are unpacked at once.
	Jobs int
	// Platforms makes the progress name the platform of each image.
	Platforms bool
	// LeaveOut is a directory that is left out of every other directory; it may be
	// empty.
	LeaveOut string
	// Limit calls a function that fetches one source, with a context that ends when it
	// takes too long.
	Limit func(ctx context.Context, f func(context.Context) error) error
}

// An Image is an image that the build reads, resolved but not fetched.
type Image struct {
	*registry.Image

	Parsed dockerspec.DockerOCIImage // the config
	Chain  digest.Digest             // the chain ID of its layers
	RootFS *RootFS
}

type imageName struct{ ref, platform string }

// A Fetched is a fetched file or tree. It is a snapshot of its own, which later builds
// find again.
type Fetched struct {
	Key    digest.Digest // names the files
	RootFS *RootFS

	record digest.Digest // that the store has of a repository's tree; "" for a file
}

// A Tree is a directory that COPY reads: the build context, or the files of an image, of
// a stage or of something fetched. It is open until the sources are closed.
type Tree struct {
	*filecopy.Tree

	Root string // the directory, for what needs a path
}

// Sources are the sources of a build. They may be used by several goroutines.
type Sources struct {
	Options

	images  memo.Map[imageName, *Image]
	fetches memo.Map[digest.Digest, *Fetched]
	views   memo.Map[*RootFS, *Tree]
	dirs    memo.Map[digest.Digest, *Tree]

	mu   sync.Mutex
	open []func() error // what Close closes
}

// New returns sources and makes no request yet. The caller closes them.
func New(o Options) *Sources { return &Sources{Options: o} }

// Close closes every tree, and stores the sums of files for later builds. The sources
// must not be in use, nor be used later.
func (s *Sources) Close() error {
	var errs []error
	for _, f := range slices.Backward(s.open) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// onClose makes Close call f, before it closes what was opened earlier.
func (s *Sources) onClose(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, f)
}
