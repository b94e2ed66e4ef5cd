package dockerfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// link resolves --from in all stages and adds the triggers that stages inherit
// from stages of the same file.
func (sc *scope) link() error {
	for _, s := range sc.stages {
		if s.Base.Stage != nil {
			inherited, err := triggers(storedTriggers(s.Base.Stage.commands), s.Location)
			if err != nil {
				return err
			}
			s.commands = append(inherited, s.commands...)
		}
		for i := range s.commands {
			c := &s.commands[i]
			if err := sc.linkCommand(c); err != nil {
				return position.Locate(err, c.at)
			}
			for _, from := range c.sources {
				if from.Stage == nil {
					sc.others = true
				} else if !s.replaced {
					s.sources = append(s.sources, from.Stage)
				}
			}
		}
	}
	return sc.checkCycles()
}

// linkCommand resolves the --from of a COPY, or the from of each mount of a RUN.
func (sc *scope) linkCommand(c *command) error {
	switch in := c.Command.(type) {
	case *instructions.CopyCommand:
		if in.From == "" {
			return nil
		}
		from, err := sc.copyFrom(in.From)
		if err != nil {
			return fmt.Errorf("COPY --from=%s: %w", in.From, err)
		}
		c.sources = []From{from}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(in) {
			name := m.From
			if name == "" {
				name = "scratch"
			}
			from, err := sc.from(name)
			if err != nil {
				return fmt.Errorf("RUN --mount with from=%s: %w", name, err)
			}
			c.sources = append(c.sources, from)
		}
	}
	return nil
}

// imageTriggers makes commands of the triggers in the configuration of the base
// image, which is not known before [Stage.Steps].
func (s *Stage) imageTriggers(expressions []string) ([]command, error) {
	commands, err := triggers(expressions, s.Location)
	if err != nil {
		return nil, err
	}
	for i := range commands {
		c := &commands[i]
		if err := s.scope.linkCommand(c); err != nil {
			return nil, position.Locate(fmt.Errorf("ONBUILD %w", err), c.at)
		}
		if err := s.checkCommand(*c); err != nil {
			return nil, position.Locate(err, c.at)
		}
	}
	return commands, nil
}

// copyFrom resolves the --from of a COPY: like that of a mount, but a number is
// the index of a stage.
func (sc *scope) copyFrom(name string) (From, error) {
	if word, err := expand.New(sc.file.escape).Word(name, &environ.Map{}); err != nil {
		return From{}, err
	} else if word != name {
		return From{}, fmt.Errorf("variables are not expanded here: name a stage whose FROM uses a global ARG")
	}
	if i, err := strconv.Atoi(name); err == nil {
		if i < 0 || i >= len(sc.stages) {
			return From{}, fmt.Errorf("invalid stage index %d: the file has %d stages", i, len(sc.stages))
		}
		return From{Stage: sc.stages[i]}, nil
	}
	return sc.from(name)
}

// from returns what a name stands for: a stage, scratch, a named context, or an image.
func (sc *scope) from(name string) (From, error) {
	if s, ok := sc.byName[strings.ToLower(name)]; ok {
		return From{Stage: s}, nil
	}
	if name == "scratch" {
		return From{Scratch: true}, nil
	}
	ref, err := normalise(name)
	if err != nil {
		return From{}, fmt.Errorf("it is no stage of the file, and as the name of an image: %w%s", err, spelling.DidYouMean(strings.ToLower(name), sc.names()))
	}
	named, err := sc.contexts.find(ref, sc.platform)
	if err != nil {
		return From{}, err
	}
	if named != nil {
		return named.from(), nil
	}
	return From{Image: ref}, nil
}

// from returns c as the place that files are taken from.
func (c *namedContext) from() From {
	switch {
	case c.empty:
		return From{Scratch: true}
	case c.image != "":
		return From{Image: c.image}
	}
	return From{Context: c.key}
}

// checkCycles refuses stages that copy from each other, whether needed or not.
func (sc *scope) checkCycles() error {
	const visiting, done = 1, 2
	marks := make([]int, len(sc.stages))
	var visit func(s *Stage) error
	visit = func(s *Stage) error {
		marks[s.Index] = visiting
		for _, c := range s.commands {
			for _, from := range c.sources {
				src := from.Stage
				if src == nil || marks[src.Index] == done {
					continue
				}
				if marks[src.Index] == visiting {
					return position.Locate(fmt.Errorf("circular dependency detected on stage: %s", src.label()), c.at)
				}
				if err := visit(src); err != nil {
					return err
				}
			}
		}
		marks[s.Index] = done
		return nil
	}
	for _, s := range sc.stages {
		if marks[s.Index] == 0 {
			if err := visit(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// needed returns the stages that the target needs, or all stages, after it has checked
// them. Each stands behind the stages that it needs.
func (sc *scope) needed(target *Stage, all bool) ([]*Stage, error) {
	need := map[*Stage]bool{target: true}
	for _, s := range sc.stages {
		if all {
			need[s] = true
		}
	}
	for queue := []*Stage{target}; len(queue) > 0; queue = queue[1:] {
		for _, n := range queue[0].Needs() {
			if !need[n] {
				need[n] = true
				queue = append(queue, n)
			}
		}
	}
	for _, s := range slices.Backward(sc.stages) {
		if need[s] {
			if err := s.check(); err != nil {
				return nil, err
			}
		}
	}
	// The order of the file will do but for stages that a named context
	// replaces, which may stand behind those that copy from them.
	var stages []*Stage
	add := func(s *Stage) {
		if need[s] {
			stages = append(stages, s)
			delete(need, s)
		}
	}
	for _, s := range sc.stages {
		if !need[s] {
			continue
		}
		for _, n := range s.Needs() {
			add(n)
		}
		add(s)
	}
	return stages, nil
}
