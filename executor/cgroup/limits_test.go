package cgroup_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/cgroup"
)

// The path of a cgroup that the kernel tells is one of its hierarchy; a mount may
// show a part of that.
func TestCgroupWithinMount(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ root, path, want string }{
		{"/", "/", "/"},
		{"/", "/user.slice/a", "/user.slice/a"},
		{"/docker/1", "/docker/1", "/"},
		{"/docker/1", "/docker/1/a", "/a"},
		{"/docker/1", "/docker/12", "/"},
		{"/docker/1", "/docker/2", "/"},
		{"/", "/../2", "/"},
	} {
		if got := cgroup.Within(tt.root, tt.path); got != tt.want {
			t.Errorf("%s in a mount of %s: %s, want %s", tt.path, tt.root, got, tt.want)
		}
	}
}

// Cgroups of v2 are made where their controllers are in force, or where bob alone
// would be moved for that.
func TestDelegatedCgroup(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		want  string // "": none
	}{
		"own": {map[string]string{"a/b/cgroup.procs": "1\n", "a/b/cgroup.subtree_control": "cpu memory pids\n"}, "a/b"},
		"above": {map[string]string{
			"a/cgroup.procs": "", "a/cgroup.subtree_control": "memory pids\n",
			"a/b/cgroup.procs": "1\n", "a/b/cgroup.subtree_control": "memory\n", "a/b/cgroup.type": "domain\n",
		}, "a"},
		"empty":            {map[string]string{"a/b/cgroup.procs": "", "a/b/cgroup.subtree_control": "", "a/b/cgroup.type": "domain\n"}, "a/b"},
		"others are there": {map[string]string{"a/b/cgroup.procs": "0\n", "a/b/cgroup.subtree_control": "", "a/b/cgroup.type": "domain\n"}, ""},
		"not ours":         {map[string]string{"a/b/cgroup.subtree_control": "memory pids\n"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, content := range tt.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := cgroup.Delegated(cgroup.Limits{Memory: 1 << 30, PIDs: 10}, root, "/a/b")
			if (err != nil) != (tt.want == "") || err == nil && got != filepath.Join(root, tt.want) {
				t.Errorf("got %s, %v", got, err)
			}
			if tt.want == "" && !strings.Contains(err.Error(), "the cgroup /a/b: ") {
				t.Errorf("got %v, want the cgroup's name", err)
			}
			if name == "empty" {
				if control, _ := os.ReadFile(filepath.Join(root, "a/b/cgroup.subtree_control")); string(control) != "+memory +pids" {
					t.Errorf("the controllers are asked for by %q", control)
				}
			}
		})
	}
}
