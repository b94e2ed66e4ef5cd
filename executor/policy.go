package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A policy says which commands may be run, and which can be run here.
type policy struct {
	insecure    bool  // RUN --security=insecure is allowed
	hostNetwork bool  // RUN --network=host is allowed
	noRUN       error // why no command can be run; nil if they can
	// emulate makes commands of other architectures run; see [Builder.Emulate].
	emulate func(ctx context.Context, architectures []string) error
}

// newPolicy returns the policy of a build. A private network keeps the Dockerfile from
// the host's network, so RUN --network=host then needs the user's permission.
func newPolicy(b *Builder, o *Options) policy {
	p := policy{
		insecure: o.AllowInsecure, hostNetwork: o.Network != sandbox.Private || o.AllowHostNetwork,
		noRUN: b.NoRUN, emulate: b.Emulate,
	}
	if p.emulate == nil {
		p.emulate = func(context.Context, []string) error { return nil }
	}
	return p
}

// runs returns an error that says why no RUN of s can be run, nil if they can.
func (p policy) runs(s *dockerfile.Stage) error {
	if on := s.Platform; on.OS != "linux" {
		return fmt.Errorf("commands for %s can't be run here, only those for linux: have a stage FROM --platform=$BUILDPLATFORM make the files, and copy them", platforms.FormatAll(on))
	}
	return p.noRUN
}

var errInsecure = errors.New("security.insecure is not allowed: build with --allow security.insecure if the Dockerfile is trusted")

var errHostNetwork = errors.New("network.host is not allowed where RUN has a private network: build with --allow network.host if the Dockerfile is trusted")

// allows returns an error that says why op, which is in s, may not be run, nil if it
// may.
func (p policy) allows(op *dockerfile.Run, s *dockerfile.Stage) error {
	if err := p.runs(s); err != nil {
		return err
	}
	if op.Insecure && !p.insecure {
		return errInsecure
	}
	if op.Network == "host" && !p.hostNetwork {
		return errHostNetwork
	}
	return nil
}

// check refuses, before anything runs, a plan that needs the user's permission or can't
// be run here. The triggers of a base image aren't known yet and are checked at their
// step.
func (p policy) check(stages []*dockerfile.Stage) error {
	for _, s := range stages {
		if at, ok := s.Runs(); ok {
			if err := p.runs(s); err != nil {
				return &StepError{Step: "RUN", Location: at, Err: err}
			}
		}
		if at, ok := s.HostNetwork(); ok && !p.hostNetwork {
			return &StepError{Step: "RUN --network=host", Location: at, Err: errHostNetwork}
		}
		if at, ok := s.Insecure(); ok && !p.insecure {
			return &StepError{Step: "RUN --security=insecure", Location: at, Err: errInsecure}
		}
	}
	return nil
}

// prepare makes sure that this machine can run the commands of all stages, also of
// other architectures than its own, or refuses the plan before anything runs. It can't
// know yet whether all results are known.
func (p policy) prepare(ctx context.Context, stages []*dockerfile.Stage) error {
	var all []string
	first := make(map[string]dockerfile.Location) // RUN by architecture
	for _, s := range stages {
		at, ok := s.Runs()
		if name := s.Platform.Architecture; ok && !slices.Contains(all, name) {
			all = append(all, name)
			first[name] = at
		}
	}
	err := p.emulate(ctx, all)
	if e, ok := errors.AsType[*binfmt.ArchitectureError](err); ok {
		return &StepError{Step: "RUN", Location: first[e.Architecture], Err: foreign(e)}
	}
	return err
}

// prepareSteps is prepare for the steps of s after its base is known, since triggers of
// the base may bring the first command. If the base names another platform than the
// wanted one, its commands run if they can: the name may be wrong.
func (p policy) prepareSteps(ctx context.Context, s *dockerfile.Stage, base ocispec.Platform, steps []dockerfile.Step) error {
	first := slices.IndexFunc(steps, func(step dockerfile.Step) bool {
		_, ok := step.Op.(*dockerfile.Run)
		return ok
	})
	if p.noRUN != nil || first < 0 {
		return nil //nolint:nilerr // the step itself fails with that
	}
	err := p.emulate(ctx, []string{s.Platform.Architecture})
	if e, ok := errors.AsType[*binfmt.ArchitectureError](err); ok {
		return locate(foreign(e), steps[first])
	}
	if err != nil || base.Architecture == "" {
		return err
	}
	err = p.emulate(ctx, []string{base.Architecture})
	if _, ok := errors.AsType[*binfmt.ArchitectureError](err); ok {
		return nil // the kernel decides
	}
	return err
}

// foreign names the architecture for which a command can't be run.
func foreign(e *binfmt.ArchitectureError) error {
	return fmt.Errorf("programs for %s can't be run here: %w", e.Architecture, e)
}
