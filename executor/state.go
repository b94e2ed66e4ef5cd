package executor

import (
	"errors"
	"slices"
	"strings"

	"github.com/bobbuild/bob/executor/account"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A basis says how far a key can be relied on.
type basis int

// The bases from best to worst. A key has the worst basis of its parts.
const (
	settled  basis = iota // by files that are there, or results that are known
	forecast              // by what stages would come to: see lookahead.go
	anew                  // by a result that was made though one was known: the known result must not be used
)

// errNoForecast says that there is no answer unless a stage is built or the files of an
// image are fetched.
var errNoForecast = errors.New("not to be told in advance")

// A state is a stage after one of its steps. States are values: a step makes a
// new one and leaves the old as it is.
type state struct {
	image   dockerspec.DockerOCIImage
	base    []ocispec.History // of the image that it began with, as it is there
	history []ocispec.History // base, and what the steps added
	layers  []*image.Layer    // base first
	key     digest.Digest
	rootfs  *source.RootFS
	from    digest.Digest // of the manifest of the image that it began with, "" without an image
	basis   basis         // of key
	unmade  bool          // of a forecast: files and layers are those of an earlier step, since the last result isn't known

	// missing is the history entry that is added last if the first layer has no entry;
	// it is nil in most images. As in BuildKit, it describes the last layer.
	missing *ocispec.History
}

// with returns s with one more layer, which leads to r, and its history.
func (s *state) with(key digest.Digest, l *image.Layer, r *source.RootFS, h ocispec.History) *state {
	n := *s
	n.key, n.rootfs = key, r
	n.layers = append(slices.Clip(s.layers), l)
	n.history = appendHistory(s.history, h)
	return &n
}

// begun returns s as the state that a stage begins with. What the stage adds to the
// history goes into memory of its own, however many other stages begin with s.
func (s *state) begun() state {
	n := *s
	n.history = slices.Clip(n.history)
	return n
}

// fullHistory is the history of s with the entry that comes last, if there is one.
func (s *state) fullHistory() []ocispec.History {
	if s.missing == nil {
		return s.history
	}
	return append(slices.Clip(s.history), *s.missing)
}

// appendHistory appends e to h, which nobody else appends to, unless e is empty:
// ONBUILD leaves no history.
func appendHistory(h []ocispec.History, e ocispec.History) []ocispec.History {
	if e.CreatedBy == "" {
		return h
	}
	return append(h, e)
}

// scratch is the state of FROM scratch: no layer.
func scratch() *state { return &state{key: recipe.Key("scratch"), rootfs: new(source.RootFS)} }

// errNoNames says that nothing can be looked up yet.
var errNoNames = errors.New("the stage is still empty and knows no names: use numbers")

// knows returns an error if spec, "user[:group]", holds a name that has to be
// looked up in files that aren't there, because the stage is still empty, as with
// BuildKit.
func (s *state) knows(spec string) error {
	if len(s.layers) > 0 || s.unmade {
		return nil
	}
	for part := range strings.SplitSeq(spec, ":") {
		if _, ok := account.ID(part); !ok && part != "" {
			return errNoNames
		}
	}
	return nil
}
