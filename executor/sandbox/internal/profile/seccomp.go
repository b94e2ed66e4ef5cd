package profile

import (
	"errors"
	"fmt"
	"slices"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Filter returns Docker's default seccomp profile for a process with
// the capabilities, which decide about the system calls it lets through.
//
// It lacks one part of it, the x32 ABI: no image platform names it, and kernels come with
// it disabled. Such calls are killed.
func Filter(capabilities []string) (*configs.Seccomp, error) {
	if !seccomp.Enabled {
		return nil, errNoSeccomp
	}
	profile, err := mobyseccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}},
	})
	if err != nil {
		return nil, fmt.Errorf("load seccomp profile: %w", err)
	}
	profile.Architectures = slices.DeleteFunc(profile.Architectures, func(a specs.Arch) bool {
		return a == specs.ArchX32
	})
	filter, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return nil, fmt.Errorf("convert seccomp profile: %w", err)
	}
	return filter, nil
}

// OpenFilter returns a filter that lets everything through, also the calls of the
// architectures that Docker's profile knows.
func OpenFilter() (*configs.Seccomp, error) {
	filter, err := Filter(nil)
	if err != nil {
		return nil, err
	}
	return &configs.Seccomp{DefaultAction: configs.Allow, Architectures: filter.Architectures}, nil
}

// errNoSeccomp is returned by Run in a binary built without libseccomp:
// running the commands of an image unfiltered is never the default.
var errNoSeccomp = errors.New("this binary was built without seccomp: build with CGO_ENABLED=1 and -tags seccomp")
