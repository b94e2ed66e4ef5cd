package sandbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
)

// newContainer makes a container with its state in a directory of that name below
// dir. libcontainer wants a cgroup in each hierarchy of version 1, and fails where
// there are none or not where it looks. Of a container that it loads it takes them
// from a file, which here says that there are none.
func newContainer(dir, id string, config *configs.Config) (*libcontainer.Container, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return libcontainer.Create(dir, id, config)
	}
	encoded, err := json.Marshal(&struct { // a pointer: Hooks marshals itself only then
		libcontainer.BaseState
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}{libcontainer.BaseState{ID: id, Config: *config}, map[string]string{}})
	if err != nil {
		return nil, fmt.Errorf("describe container: %w", err)
	}
	state := filepath.Join(dir, id)
	if err := os.Mkdir(state, 0o711); err != nil { //nolint:gosec // as libcontainer makes it
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(state, "state.json"), encoded, 0o600); err != nil {
		return nil, err
	}
	container, err := libcontainer.Load(dir, id)
	if err == nil && len(config.Hooks) > 0 {
		maps.Copy(container.Config().Hooks, config.Hooks) // which a file can't hold
	}
	return container, err
}
