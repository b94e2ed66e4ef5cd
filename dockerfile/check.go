package dockerfile

import (
	"errors"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// check finds the mistakes in an instruction that show before its variables are
// expanded. Words with variables are passed over: they are checked when the
// instruction is carried out.
func (c command) check() error {
	if spec, ok := copySpecOf(c.Command); ok {
		_, err := spec.known().lower(From{}, "/")
		return err
	}
	switch in := c.Command.(type) {
	case *instructions.RunCommand:
		return c.checkRun(in)
	case *instructions.StopSignalCommand:
		if known(in.Signal) {
			return checkSignal(in.Signal)
		}
	case *instructions.ExposeCommand:
		for _, port := range in.Ports {
			if known(port) {
				if _, err := parsePort(port); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c command) checkRun(in *instructions.RunCommand) error {
	switch {
	case len(instructions.GetDevices(in)) > 0:
		return errors.New("RUN --device is not part of the stable Dockerfile language")
	case len(in.CmdLine) == 0 && !in.PrependShell:
		return errors.New("RUN [] requires a command")
	}
	if _, _, err := runArgs(in); err != nil {
		return err
	}
	return c.checkMounts()
}
