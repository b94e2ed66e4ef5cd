package dockerfile

import (
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/bobbuild/bob/dockerfile/internal/ports"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// check finds the mistakes in a needed stage that don't depend on its base.
func (s *Stage) check() error {
	if s.replaced || s.scope.unchecked {
		return nil
	}
	for _, c := range s.commands {
		if err := s.checkCommand(c); err != nil {
			return position.Locate(err, c.at)
		}
	}
	return nil
}

// checkCommand finds the mistakes in c that show where it stands.
func (s *Stage) checkCommand(c command) error {
	if err := s.checkOrder(c); err != nil {
		return err
	}
	return c.check()
}

// checkOrder refuses to take files from a stage that is not complete by then.
func (s *Stage) checkOrder(c command) error {
	for i, from := range c.sources {
		src := from.Stage
		if src == nil || src.replaced || src.Index < s.Index {
			continue
		}
		run, ok := c.Command.(*instructions.RunCommand)
		if !ok {
			return fmt.Errorf("cannot copy from stage %q, it needs to be defined before current stage %q", src.label(), s.label())
		}
		name, target := instructions.GetMounts(run)[i].From, ""
		if mounts, err := c.mounts(func(word string) (string, error) { return word, nil }); err == nil {
			target = mounts[i].Target
		}
		return fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", name, target)
	}
	return nil
}

// check finds the mistakes in an instruction that show before its variables are
// expanded. Words with variables are passed over: they are checked when the
// instruction is carried out.
func (c command) check() error {
	if spec, ok := copySpecOf(c.Command); ok {
		_, err := spec.known().lower(From{}, paths.Place{Dir: "/"})
		return err
	}
	switch in := c.Command.(type) {
	case *instructions.RunCommand:
		return c.checkRun(in)
	case *instructions.StopSignalCommand:
		if expand.Constant(in.Signal) {
			return checkSignal(in.Signal)
		}
	case *instructions.ExposeCommand:
		for _, port := range in.Ports {
			if expand.Constant(port) {
				if _, err := ports.Parse(port); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c command) checkRun(in *instructions.RunCommand) error {
	switch {
	case len(in.CmdLine) == 0 && !in.PrependShell:
		return errors.New("RUN [] requires a command")
	}
	// There is no device to give: as in a BuildKit without any, those that a
	// command can do without are left out.
	for _, d := range instructions.GetDevices(in) {
		if d.Required {
			return fmt.Errorf("RUN --device: device %q is required, but no devices can be given to a RUN", d.Name)
		}
	}
	if _, _, err := runArgs(in, ""); err != nil {
		return err
	}
	return c.checkMounts()
}
