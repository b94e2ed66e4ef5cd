package sandbox

import (
	"fmt"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// seccompFilter returns Docker's default seccomp profile for a process with
// the capabilities, which decide about the system calls it lets through.
func seccompFilter(capabilities []string) (*configs.Seccomp, error) {
	if !seccomp.Enabled {
		return nil, errNoSeccomp
	}
	profile, err := mobyseccomp.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: capabilities}},
	})
	if err != nil {
		return nil, fmt.Errorf("load seccomp profile: %w", err)
	}
	filter, err := specconv.SetupSeccomp(profile)
	if err != nil {
		return nil, fmt.Errorf("convert seccomp profile: %w", err)
	}
	return filter, nil
}
