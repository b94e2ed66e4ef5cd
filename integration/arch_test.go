package integration_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

const module = "github.com/bobbuild/bob"

// A goPackage is what the arrows need of "go list -json".
type goPackage struct {
	ImportPath string
	Imports    []string
}

// arrows says which of bob's own packages each package imports. What is not listed here
// must be added here, with thought: who may know of whom is what keeps the parts apart.
var arrows = map[string][]string{
	"cmd/bob": {
		"cmd/bob/help", "cmd/bob/internal/await", "cmd/bob/internal/cli", "cmd/bob/internal/diagnosis",
		"cmd/bob/internal/input", "cmd/bob/internal/inspected", "cmd/bob/internal/limits", "cmd/bob/internal/listen",
		"cmd/bob/internal/output", "cmd/bob/internal/secret", "cmd/bob/internal/sharedcache",
		"cmd/bob/internal/terminal", "dockerfile", "executor", "executor/binfmt", "executor/cgroup",
		"executor/command", "executor/doctor", "executor/event", "executor/fetch", "executor/filecopy",
		"executor/image", "executor/isolation", "executor/obstacle", "executor/progress", "executor/sandbox",
		"registry", "registry/certs", "registry/conf", "registry/logins", "registry/oci", "registry/patience",
		"registry/proxy", "registry/serve", "registry/transfer", "snapshot", "snapshot/bounded",
	},
	"cmd/bob/help":               {},
	"cmd/bob/internal/await":     {},
	"cmd/bob/internal/cli":       {},
	"cmd/bob/internal/diagnosis": {"cmd/bob/internal/terminal", "executor/doctor", "executor/isolation", "snapshot"},
	"cmd/bob/internal/input": {
		"cmd/bob/internal/cli", "dockerfile", "executor", "executor/fetch", "executor/filecopy", "registry/archive",
		"snapshot", "snapshot/bounded",
	},
	"cmd/bob/internal/inspected": {"cmd/bob/internal/terminal", "registry/transfer"},
	"cmd/bob/internal/limits":    {"executor/cgroup"},
	"cmd/bob/internal/listen":    {"cmd/bob/internal/cli"},
	"cmd/bob/internal/output":    {"cmd/bob/internal/cli", "executor", "executor/image", "snapshot"},
	"cmd/bob/internal/secret":    {"cmd/bob/internal/cli", "executor/command"},
	"cmd/bob/internal/sharedcache": {
		"cmd/bob/internal/cli", "cmd/bob/internal/output", "executor", "executor/cache", "executor/image",
		"registry/archive",
	},
	"cmd/bob/internal/terminal": {},
	"dockerfile": {
		"dockerfile/internal/environ", "dockerfile/internal/expand", "dockerfile/internal/lint",
		"dockerfile/internal/paths", "dockerfile/internal/ports", "dockerfile/internal/position",
		"dockerfile/internal/spelling",
	},
	"dockerfile/internal/environ": {},
	"dockerfile/internal/expand":  {},
	"dockerfile/internal/lint": {
		"dockerfile/internal/environ", "dockerfile/internal/expand", "dockerfile/internal/position",
	},
	"dockerfile/internal/paths":    {},
	"dockerfile/internal/ports":    {},
	"dockerfile/internal/position": {},
	"dockerfile/internal/spelling": {},
	"executor": {
		"dockerfile", "executor/account", "executor/binfmt", "executor/cache", "executor/command", "executor/event",
		"executor/explain", "executor/fetch", "executor/filecopy", "executor/image", "executor/inputs",
		"executor/memo", "executor/recipe", "executor/sandbox", "executor/source", "registry", "registry/archive",
		"registry/oci", "snapshot", "snapshot/owners",
	},
	"executor/account": {"executor/filecopy"},
	"executor/binfmt":  {"executor/isolation", "executor/obstacle"},
	"executor/cache": {
		"executor/event", "executor/image", "executor/memo", "executor/recipe", "executor/source", "registry",
		"registry/archive", "registry/oci", "snapshot",
	},
	"executor/cgroup": {"executor/obstacle"},
	"executor/command": {
		"dockerfile", "executor/account", "executor/event", "executor/filecopy", "executor/recipe",
		"executor/sandbox", "snapshot", "snapshot/bounded", "snapshot/owners",
	},
	"executor/doctor": {
		"executor/binfmt", "executor/cgroup", "executor/isolation", "executor/obstacle", "executor/sandbox",
		"executor/sandbox/landlock", "executor/sandbox/private",
	},
	"executor/event":    {},
	"executor/explain":  {"executor/event", "executor/filecopy", "executor/recipe", "snapshot"},
	"executor/fetch":    {"registry/patience", "snapshot/bounded"},
	"executor/filecopy": {"snapshot/bounded", "snapshot/owners", "snapshot/pathwalk"},
	"executor/image": {
		"executor/event", "executor/memo", "executor/recipe", "registry", "registry/archive", "snapshot",
		"snapshot/bounded",
	},
	"executor/inputs":    {"executor/filecopy", "executor/recipe"},
	"executor/isolation": {"executor/cgroup", "executor/obstacle", "executor/sandbox/mountattr"},
	"executor/memo":      {},
	"executor/obstacle":  {},
	"executor/progress":  {"executor/event"},
	"executor/recipe":    {"executor/filecopy"},
	"executor/sandbox": {
		"executor/cgroup", "executor/isolation", "executor/obstacle", "executor/sandbox/internal/chroot",
		"executor/sandbox/internal/emulate", "executor/sandbox/internal/entry", "executor/sandbox/internal/filter",
		"executor/sandbox/internal/mountpoint", "executor/sandbox/internal/profile",
		"executor/sandbox/internal/stream", "executor/sandbox/landlock", "executor/sandbox/mountattr",
		"executor/sandbox/private", "snapshot/owners",
	},
	"executor/sandbox/internal/chroot": {
		"executor/obstacle", "executor/sandbox/internal/emulate", "executor/sandbox/internal/filter",
		"executor/sandbox/internal/mountpoint", "executor/sandbox/internal/profile",
		"executor/sandbox/internal/stream", "executor/sandbox/landlock", "snapshot/owners",
	},
	"executor/sandbox/internal/emulate":           {"executor/sandbox/internal/filter", "snapshot/owners"},
	"executor/sandbox/internal/entry":             {},
	"executor/sandbox/internal/entry/initprogram": {"executor/sandbox/internal/entry"},
	"executor/sandbox/internal/filter":            {},
	"executor/sandbox/internal/mountpoint":        {},
	"executor/sandbox/internal/profile":           {},
	"executor/sandbox/internal/stream":            {},
	"executor/sandbox/landlock":                   {"executor/obstacle"},
	"executor/sandbox/mountattr":                  {},
	"executor/sandbox/private":                    {"executor/obstacle", "registry/nearby"},
	"executor/sandbox/sandboxtest":                {},
	"executor/source": {
		"executor/event", "executor/fetch", "executor/filecopy", "executor/memo", "executor/recipe", "registry",
		"registry/archive", "snapshot",
	},
	"integration":             {},
	"integration/bench":       {"integration/harness"},
	"integration/bench/floor": {},
	"integration/demo/show":   {},
	"integration/harness":     {},
	"integration/live":        {},
	"registry": {
		"registry/certs", "registry/conf", "registry/internal/auth", "registry/internal/host",
		"registry/internal/reference", "registry/internal/wire", "registry/internal/words", "registry/oci",
		"registry/patience",
	},
	"registry/archive":            {"registry/internal/words", "registry/oci", "snapshot/bounded"},
	"registry/certs":              {"snapshot/bounded"},
	"registry/conf":               {"registry/internal/reference", "registry/internal/words", "snapshot/bounded"},
	"registry/internal/auth":      {"registry/internal/host", "registry/internal/words", "registry/patience"},
	"registry/internal/host":      {"registry/patience"},
	"registry/internal/reference": {"registry/internal/words"},
	"registry/internal/registrytest": {
		"registry", "registry/archive", "registry/oci", "registry/patience", "registry/patience/patiencetest",
		"registry/serve",
	},
	"registry/internal/wire": {
		"registry/certs", "registry/internal/host", "registry/internal/words", "registry/oci", "registry/patience",
	},
	"registry/internal/words":        {},
	"registry/logins":                {"registry/internal/reference", "registry/internal/words", "snapshot/bounded"},
	"registry/nearby":                {},
	"registry/oci":                   {"registry/internal/words"},
	"registry/patience":              {},
	"registry/patience/patiencetest": {},
	"registry/proxy": {
		"registry/internal/auth", "registry/internal/host", "registry/internal/reference", "registry/internal/words",
		"registry/nearby", "registry/patience",
	},
	"registry/serve": {},
	"registry/transfer": {
		"registry", "registry/archive", "registry/internal/reference", "registry/internal/words", "registry/oci",
	},
	"snapshot": {
		"snapshot/bounded", "snapshot/internal/blobs", "snapshot/internal/cachemounts", "snapshot/internal/checkout",
		"snapshot/internal/committed", "snapshot/internal/content", "snapshot/internal/descent",
		"snapshot/internal/durable", "snapshot/internal/file", "snapshot/internal/gzipblocks",
		"snapshot/internal/idmap", "snapshot/internal/layers", "snapshot/internal/layertar",
		"snapshot/internal/locks", "snapshot/internal/overlay", "snapshot/internal/pruning",
		"snapshot/internal/records", "snapshot/internal/relpath", "snapshot/internal/trash", "snapshot/internal/tree",
		"snapshot/internal/underlay", "snapshot/internal/usage", "snapshot/owners",
	},
	"snapshot/bounded": {},
	"snapshot/internal/blobs": {
		"snapshot/bounded", "snapshot/internal/pruning", "snapshot/internal/trash", "snapshot/internal/usage",
	},
	"snapshot/internal/cachemounts": {
		"snapshot/internal/durable", "snapshot/internal/locks", "snapshot/internal/pruning",
		"snapshot/internal/trash", "snapshot/internal/usage",
	},
	"snapshot/internal/checkout": {
		"snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/layers",
		"snapshot/internal/layertar", "snapshot/internal/locks", "snapshot/internal/relpath",
		"snapshot/internal/trash", "snapshot/owners",
	},
	"snapshot/internal/committed": {
		"snapshot/internal/descent", "snapshot/internal/durable", "snapshot/internal/locks",
		"snapshot/internal/pruning", "snapshot/internal/trash", "snapshot/internal/usage",
	},
	"snapshot/internal/content": {"snapshot/bounded"},
	"snapshot/internal/descent": {},
	"snapshot/internal/durable": {"snapshot/internal/locks"},
	"snapshot/internal/file": {
		"snapshot/internal/descent", "snapshot/internal/idmap", "snapshot/internal/relpath", "snapshot/owners",
	},
	"snapshot/internal/gzipblocks": {},
	"snapshot/internal/idmap":      {"snapshot/owners"},
	"snapshot/internal/layers": {
		"snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/relpath", "snapshot/owners",
		"snapshot/pathwalk",
	},
	"snapshot/internal/layertar": {
		"snapshot/bounded", "snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/layers",
		"snapshot/internal/relpath", "snapshot/owners", "snapshot/pathwalk",
	},
	"snapshot/internal/locks": {"snapshot/internal/descent"},
	"snapshot/internal/overlay": {
		"snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/layers",
		"snapshot/internal/relpath", "snapshot/owners",
	},
	"snapshot/internal/pruning": {
		"snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/trash", "snapshot/internal/usage",
	},
	"snapshot/internal/records": {
		"snapshot/internal/durable", "snapshot/internal/pruning", "snapshot/internal/trash",
		"snapshot/internal/usage",
	},
	"snapshot/internal/relpath": {},
	"snapshot/internal/trash":   {"snapshot/internal/descent", "snapshot/internal/locks"},
	"snapshot/internal/tree": {
		"snapshot/bounded", "snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/layers",
		"snapshot/internal/layertar", "snapshot/internal/relpath", "snapshot/owners", "snapshot/pathwalk",
	},
	"snapshot/internal/underlay": {
		"snapshot/bounded", "snapshot/internal/descent", "snapshot/internal/file", "snapshot/internal/layers",
		"snapshot/internal/relpath", "snapshot/internal/tree", "snapshot/owners", "snapshot/pathwalk",
	},
	"snapshot/internal/usage":        {"snapshot/internal/locks"},
	"snapshot/owners":                {},
	"snapshot/pathwalk":              {},
	"snapshot/pathwalk/pathwalktest": {},
}

func TestArrows(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("go"))
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		may, known := arrows[name]
		if !known {
			t.Errorf("package %s: no arrows are written down for it", name)
		}
		for _, i := range p.Imports {
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("package %s imports %s", name, own)
			}
		}
	}
}

// listPackages lists the module's packages without their tests.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	root, err := harness.Module(t.Context())
	check(t, err)
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = root
	out, err := list.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	check(t, err)
	var packages []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
