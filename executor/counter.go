package executor

import (
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/containerd/platforms"
)

// A counter numbers the steps of a stage as "[title 2/5]".
type counter struct {
	title    string
	n, total int
}

// counter returns the counter of the steps of s, whose FROM is the first of them.
func (all plans) counter(s *dockerfile.Stage, steps []dockerfile.Step) *counter {
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
	c.title = all.prefix(s) + c.title
	return c
}

// prefix returns the prefix that distinguishes the steps of s from steps for
// other platforms, as in "[linux/amd64->arm64 build 2/5]". It is "" with one platform.
func (all plans) prefix(s *dockerfile.Stage) string {
	if len(all) == 1 {
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
