package dockerfile

import (
	"fmt"
	"slices"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// resolve sets the base and the platform of s.
func (sc *scope) resolve(s *Stage, in instructions.Stage, lex expand.Lexer) error {
	name, err := lex.Word(in.BaseName, sc.globals)
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("base name (%s) should not be blank: an ARG before the first FROM can give it a default", in.BaseName)
	}
	s.Platform = sc.platform
	if in.Platform != "" {
		word, err := lex.Word(in.Platform, sc.globals)
		if err != nil {
			return err
		}
		if word == "" {
			return fmt.Errorf("platform (%s) should not be blank%s", in.Platform, suggestVariable(in.Platform, sc.globals))
		}
		if s.Platform, err = platforms.Parse(word); err != nil {
			return fmt.Errorf("platform %s: %w%s", in.Platform, err, suggestVariable(in.Platform, sc.globals))
		}
	}
	if s.Name != "" {
		if named, err := sc.contexts.find(s.Name, s.Platform); err != nil {
			return err
		} else if named != nil {
			s.Base, s.replaced = named.base(), true
			return nil
		}
	}
	if base, ok := sc.byName[name]; ok {
		s.Base.Stage, s.Platform = base, base.Platform
		return nil
	}
	if name == "scratch" {
		s.Platform = sc.platform
		return nil
	}
	ref, err := normalise(name)
	if err != nil {
		return fmt.Errorf("base name %q: %w%s", name, err, spelling.DidYouMean(name, sc.names()))
	}
	named, err := sc.contexts.find(ref, s.Platform)
	if err != nil {
		return err
	}
	if named != nil {
		s.Base = named.base()
		return nil
	}
	s.Base.Reference = ref
	return nil
}

// suggestVariable returns a suggestion for a variable in word that is not set.
func suggestVariable(word string, env *environ.Map) string {
	for _, name := range expand.Names(word) {
		if _, ok := env.Get(name); !ok {
			if hint := spelling.DidYouMean(name, slices.Sorted(slices.Values(env.Keys()))); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// base returns c as the base of a stage.
func (c *namedContext) base() Base {
	switch {
	case c.empty:
		return Base{}
	case c.image != "":
		return Base{Reference: c.image}
	}
	return Base{Context: c.key}
}
