package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/oci"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/source"
	"github.com/containerd/platforms"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A state is a stage after one of its steps. States are values: a step makes a
// new one and leaves the old as it is.
type state struct {
	image   dockerspec.DockerOCIImage
	base    []ocispec.History // of the image that it began with, as it is there
	history []ocispec.History // base, and what the steps added
	layers  []*layer          // base first
	key     digest.Digest
	rootfs  *rootfs
	from    digest.Digest // of the manifest of the image that it began with, "" if none
	basis   basis         // of key
	unmade  bool          // of a forecast: files and layers are those of an earlier step, since the last result isn't known

	// missing is the history entry that comes last because the first layer has
	// none, nil in most images. As BuildKit has it, it tells of the last layer.
	missing *ocispec.History
}

// with returns s with one more layer, which leads to r, and its history.
func (s *state) with(key digest.Digest, l *layer, r *rootfs, h ocispec.History) *state {
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

// appendHistory returns h, which nobody else appends to, with e behind it unless e says
// nothing: ONBUILD leaves no history.
func appendHistory(h []ocispec.History, e ocispec.History) []ocispec.History {
	if e.CreatedBy == "" {
		return h
	}
	return append(h, e)
}

// stage returns the last state of s, which is built if it isn't yet.
func (b *build) stage(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	return b.stages.Get(ctx, s, func(ctx context.Context) (*state, error) {
		return b.buildStage(ctx, s)
	})
}

// An outline is a stage before any of its steps is done.
type outline struct {
	base     *state           // nil if that is a stage
	platform ocispec.Platform // that the image at the bottom says it is for
	steps    []dockerfile.Step
	image    dockerspec.DockerOCIImage // before the steps
}

// outline returns the outline of s.
func (b *build) outline(ctx context.Context, s *dockerfile.Stage) (*outline, error) {
	return b.outlines.Get(ctx, s, func(ctx context.Context) (o *outline, err error) {
		o = &outline{}
		if s.Base.Stage != nil {
			_, err = b.outline(ctx, s.Base.Stage)
		} else {
			o.base, err = b.base(ctx, s)
		}
		if err != nil {
			return nil, err
		}
		root, err := b.linter().config(ctx, s)
		if err != nil {
			return nil, err
		}
		if err := b.lint(s, root); err != nil {
			return nil, err
		}
		o.platform = root.Platform
		o.steps, o.image, err = s.Steps(root)
		return o, err
	})
}

func (b *build) buildStage(ctx context.Context, s *dockerfile.Stage) (_ *state, err error) {
	o, err := b.outline(ctx, s)
	if err != nil {
		return nil, err
	}
	base := o.base
	if s.Base.Stage != nil {
		if base, err = b.stage(ctx, s.Base.Stage); err != nil {
			return nil, err
		}
	}
	if err := b.policy.prepareSteps(ctx, s, o.platform, o.steps); err != nil {
		return nil, err
	}
	n := b.counter(s, o.steps)
	if s.Base.Reference != "" {
		n.next() // the FROM itself, shown when its layers are needed
	}
	book := b.notebook(s)
	defer func() { err = errors.Join(err, book.save()) }()
	st := base.begun()
	st.image = o.image
	for i, step := range o.steps {
		if step.Op == nil {
			step.History.Created = b.plan.Epoch
			st.history = appendHistory(st.history, step.History)
			continue
		}
		next, err := b.step(ctx, &st, task{step, s, i, book, n.next(), func() {
			for _, later := range o.steps[i:] {
				for _, from := range stagesOf(later.Op) {
					b.startStage(from)
				}
			}
		}})
		if err != nil {
			return nil, b.stopwatch.place(err, step)
		}
		st = *next
	}
	return &st, nil
}

// base returns the state that s, which is not over another stage, starts from.
func (b *build) base(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	switch {
	case s.Base.Reference != "":
		st, err := b.image(ctx, s.Base.Reference, s.Platform)
		if err != nil {
			if errors.Is(err, oci.ErrNotFound) {
				err = fmt.Errorf("%w%s", err, s.DidYouMean())
			}
			return nil, &StepError{Step: "FROM " + s.Base.Reference, Location: s.Location, Err: err}
		}
		return st, b.startBase(s, st)
	case s.Base.Context != "":
		st, err := b.contextBase(ctx, s)
		if err != nil {
			return nil, &StepError{Step: "FROM " + s.Base.Context, Location: s.Location, Err: err}
		}
		return st, b.startBase(s, st)
	default:
		return scratch(), nil
	}
}

// image returns the state of a stage that is the image ref for p and nothing else.
func (b *build) image(ctx context.Context, ref string, p ocispec.Platform) (*state, error) {
	img, err := b.sources.Image(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	return b.imageState(ctx, img)
}

// layout is image of an image in a directory.
func (b *build) layout(ctx context.Context, l *archive.LayoutImage, p ocispec.Platform) (*state, error) {
	img, err := b.sources.Layout(ctx, l, p)
	if err != nil {
		return nil, err
	}
	return b.imageState(ctx, img)
}

// imageState returns the state of a stage that is img and nothing else, the same one
// each time, so that each layer of it is handled once.
func (b *build) imageState(ctx context.Context, img *source.Image) (*state, error) {
	return b.bases.Get(ctx, img, func(context.Context) (*state, error) {
		st := &state{
			image: img.Parsed, base: img.Parsed.History, history: img.Parsed.History,
			key: recipe.Key("image", img.Chain.String()), rootfs: &rootfs{RootFS: img.RootFS}, from: img.Digest,
		}
		for _, l := range img.Layers {
			st.layers = append(st.layers, knownLayer(l, img.Image))
		}
		return st, nil
	})
}

// startBase has the layers of st, which s starts from, on their way while the steps
// run, if they are part of the image. A layer that a format has no name for is an
// error.
func (b *build) startBase(s *dockerfile.Stage, st *state) error {
	if !b.exports.wants(s) {
		return nil
	}
	for _, l := range st.layers {
		for _, f := range b.exports.formats {
			if l.image == nil || f.recompresses(l.base.MediaType) {
				continue
			}
			if _, err := f.descriptor(l.base.Descriptor); err != nil {
				return &StepError{Step: "FROM " + s.Base.Reference + s.Base.Context, Location: s.Location, Err: err}
			}
		}
		b.start(l)
	}
	return nil
}

// scratch is the state of FROM scratch: no layer.
func scratch() *state { return &state{key: recipe.Key("scratch"), rootfs: emptyRootFS()} }

// A counter numbers the steps of a stage as "[title 2/5]".
type counter struct {
	title    string
	n, total int
}

func (b *build) counter(s *dockerfile.Stage, steps []dockerfile.Step) *counter {
	c := &counter{title: s.Title()}
	if s.Base.Reference != "" {
		c.total++
	}
	for _, step := range steps {
		if step.Op != nil {
			c.total++
		}
	}
	if c.title != "" {
		c.title += " "
	}
	c.title = b.platformPrefix(s) + c.title
	return c
}

// platformPrefix returns what tells the steps of s from those for other platforms,
// as in "[linux/amd64->arm64 build 2/5]"; with one platform nothing.
func (b *build) platformPrefix(s *dockerfile.Stage) string {
	if len(b.plans) == 1 {
		return ""
	}
	prefix := platforms.FormatAll(s.Platform)
	switch t := s.TargetPlatform(); {
	case !s.SeesTarget():
	case t.OS != s.Platform.OS:
		prefix += "->" + platforms.FormatAll(t)
	case t.Architecture != s.Platform.Architecture:
		prefix += "->" + t.Architecture
		if t.Variant != "" {
			prefix += "/" + t.Variant
		}
	}
	return prefix + " "
}

func (c *counter) next() string {
	c.n++
	return c.at(c.n)
}

func (c *counter) at(n int) string { return fmt.Sprintf("[%s%d/%d]", c.title, n, c.total) }
