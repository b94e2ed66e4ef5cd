package executor

import (
	"context"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/inputs"
	"github.com/bobbuild/bob/executor/source"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// A build is one call of Build: everything that its stages share.
type build struct {
	*Builder
	plan  *dockerfile.Plan   // the first of plans, for what they have in common
	plans []*dockerfile.Plan // one for each platform
	opts  Options

	group     *errgroup.Group // all goroutines of the build; its first error is the build's
	life      context.Context //nolint:containedctx // of group: what is made for all outlives the step that asked first
	progress  *event.Reporter
	stopwatch stopwatch
	policy    policy
	results   *results
	commands  *command.Commands
	inResult  map[*dockerfile.Stage]bool // stages whose layers are part of the result
	exporter  *image.Exporter
	caches    *cache.Caches
	sources   *source.Sources

	reads     inputs.Reads // of the build context
	explained explain.Log
}

// allStages returns the stages of all plans.
func (b *build) allStages() []*dockerfile.Stage {
	var all []*dockerfile.Stage
	for _, p := range b.plans {
		all = append(all, p.Stages...)
	}
	return all
}

// created returns the time of f for the image's history.
func (b *build) created(f *finding) *time.Time {
	if b.plan.Epoch != nil {
		return b.plan.Epoch
	}
	return &f.Created
}

// platforms returns the platforms of the build, in the order of the plans.
func (b *build) platforms() []ocispec.Platform {
	var all []ocispec.Platform
	for _, p := range b.plans {
		all = append(all, p.Target().TargetPlatform())
	}
	return all
}
