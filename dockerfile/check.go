package dockerfile

import (
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/bobbuild/bob/dockerfile/internal/ports"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

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
