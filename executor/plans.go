package executor

import (
	"github.com/bobbuild/bob/dockerfile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// plans are the plans of a build, one for each platform.
type plans []*dockerfile.Plan

// stages returns the stages of all plans.
func (all plans) stages() (stages []*dockerfile.Stage) {
	for _, p := range all {
		stages = append(stages, p.Stages...)
	}
	return stages
}

// platforms returns the platforms of the images, in the order of the plans.
func (all plans) platforms() (platforms []ocispec.Platform) {
	for _, p := range all {
		platforms = append(platforms, p.Target().TargetPlatform())
	}
	return platforms
}

// inResult returns the stages whose layers are part of an image: the targets and the
// stages below them.
func (all plans) inResult() map[*dockerfile.Stage]bool {
	stages := make(map[*dockerfile.Stage]bool)
	for _, p := range all {
		for s := p.Target(); s != nil; s = s.Base.Stage {
			stages[s] = true
		}
	}
	return stages
}
