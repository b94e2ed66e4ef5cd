// Package lint checks Dockerfiles by the rules of BuildKit.
package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Warning is a remark on a Dockerfile that doesn't keep it from being built.
type Warning struct {
	Location    position.Location
	Rule        string // name of the rule of BuildKit that was broken; "" if it is another remark
	Description string // of the rule
	URL         string // where the rule is explained; not every rule has one
	Text        string // what is wrong here
}

// String returns "Dockerfile:3: MaintainerDeprecated: Maintainer instruction …".
func (w Warning) String() string {
	if w.Rule == "" {
		return w.Location.String() + ": " + w.Text
	}
	return w.Location.String() + ": " + w.Rule + ": " + w.Text
}

// Violations returns the error that BuildKit's check=error=true makes of
// warnings: one that names the rules they broke, nil if there are none.
func Violations(warnings []Warning) error {
	rules := map[string]bool{}
	for _, w := range warnings {
		rules[w.Rule] = true
	}
	delete(rules, "")
	if len(rules) == 0 {
		return nil
	}
	return fmt.Errorf("lint violation found for rules: %s", strings.Join(slices.Sorted(maps.Keys(rules)), ", "))
}

// New returns a linter that tells warn of what it finds. The warning's
// location is left to warn.
func New(config *linter.Config, warn func(Warning, []parser.Range)) *linter.Linter {
	c := *config
	c.Warn = func(rule, description, url, text string, at []parser.Range) {
		warn(Warning{Rule: rule, Description: description, URL: url, Text: text}, at)
	}
	return linter.New(&c)
}

// Platform compares the platform of the image called name with the one asked for.
func Platform(lint *linter.Linter, name string, want ocispec.Platform, image dockerspec.DockerOCIImage) {
	if isEmptyImage(image) {
		return
	}
	got := image.Platform
	if want.OS == got.OS && want.Architecture == got.Architecture {
		return
	}
	show := func(p ocispec.Platform) string { return platforms.FormatAll(platforms.Normalize(p)) }
	lint.Run(&linter.RuleInvalidBaseImagePlatform, nil, linter.RuleInvalidBaseImagePlatform.Format(name, show(want), show(got)))
}

// isEmptyImage tells whether an image has no layers.
func isEmptyImage(image dockerspec.DockerOCIImage) bool {
	if len(image.RootFS.DiffIDs) > 0 {
		return false
	}
	for _, h := range image.History {
		if !h.EmptyLayer {
			return false
		}
	}
	return true
}
