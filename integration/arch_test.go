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
	Deps       []string
}

// arrows says which of bob's own packages each package may reach, directly or
// not. What is not listed here must be added here, with thought. Whoever may reach a
// package may reach what is internal to it.
var arrows = map[string][]string{
	"dockerfile":                 {},
	"snapshot":                   {"snapshot/owners", "snapshot/bounded", "snapshot/pathwalk"},
	"snapshot/owners":            {},
	"snapshot/bounded":           {},
	"snapshot/pathwalk":          {},
	"registry":                   {"snapshot/bounded", "registry/patience", "registry/oci", "registry/conf", "registry/certs"},
	"registry/certs":             {"snapshot/bounded"},
	"registry/conf":              {"snapshot/bounded", "registry/internal/reference", "registry/internal/words"},
	"registry/logins":            {"snapshot/bounded", "registry/internal/reference", "registry/internal/words"},
	"registry/oci":               {"registry/internal/words"},
	"registry/archive":           {"registry/oci", "registry/internal/words", "snapshot/bounded"},
	"registry/transfer":          {"registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/patience", "snapshot/bounded"},
	"registry/nearby":            {},
	"registry/patience":          {},
	"registry/proxy":             {"registry/nearby", "registry/patience", "registry/internal/auth", "registry/internal/host", "registry/internal/reference", "registry/internal/words"},
	"registry/serve":             {},
	"executor/cgroup":            {"executor/obstacle"},
	"executor/sandbox":           {"executor/cgroup", "snapshot/owners", "registry/nearby", "executor/isolation", "executor/obstacle", "executor/sandbox/landlock", "executor/sandbox/mountattr", "executor/sandbox/private"},
	"executor/binfmt":            {"executor/cgroup", "executor/isolation", "executor/obstacle", "executor/sandbox/mountattr"},
	"executor/doctor":            {"executor/binfmt", "executor/cgroup", "executor/isolation", "executor/obstacle", "executor/sandbox", "executor/sandbox/internal/chroot", "executor/sandbox/internal/emulate", "executor/sandbox/internal/mountpoint", "executor/sandbox/internal/profile", "executor/sandbox/internal/stream", "executor/sandbox/landlock", "executor/sandbox/mountattr", "executor/sandbox/private", "registry/nearby", "snapshot/owners"},
	"executor/inputs":            {"executor/filecopy", "executor/recipe", "snapshot/bounded", "snapshot/owners", "snapshot/pathwalk"},
	"executor/isolation":         {"executor/cgroup", "executor/obstacle", "executor/sandbox/mountattr"},
	"executor/obstacle":          {},
	"executor/sandbox/landlock":  {"executor/obstacle"},
	"executor/sandbox/mountattr": {},
	"executor/sandbox/private":   {"executor/obstacle", "registry/nearby"},
	"executor/filecopy":          {"snapshot/owners", "snapshot/bounded", "snapshot/pathwalk"},
	"executor/fetch":             {"snapshot/bounded", "registry/patience"},
	"executor/account":           {"executor/filecopy", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk"},
	"executor/command":           {"dockerfile", "snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry/nearby", "executor/cgroup", "executor/sandbox", "executor/filecopy", "executor/account", "executor/event", "executor/recipe", "executor/isolation", "executor/obstacle", "executor/sandbox/landlock", "executor/sandbox/mountattr", "executor/sandbox/private"},
	"executor/memo":              {},
	"executor/event":             {},
	"executor/recipe":            {"executor/filecopy", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk"},
	"executor/cache":             {"snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/patience", "executor/filecopy", "executor/fetch", "executor/memo", "executor/event", "executor/source", "executor/image", "executor/recipe"},
	"executor/explain":           {"snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "executor/filecopy", "executor/event", "executor/recipe"},
	"executor/image":             {"snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/patience", "executor/filecopy", "executor/memo", "executor/event", "executor/recipe"},
	"executor/source":            {"snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/patience", "executor/filecopy", "executor/fetch", "executor/memo", "executor/event", "executor/recipe"},
	"executor":                   {"dockerfile", "snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/nearby", "registry/patience", "executor/sandbox", "executor/filecopy", "executor/fetch", "executor/account", "executor/command", "executor/memo", "executor/event", "executor/source", "executor/explain", "executor/cache", "executor/image", "executor/recipe", "executor/cgroup", "executor/binfmt", "executor/inputs", "executor/isolation", "executor/obstacle", "executor/sandbox/landlock", "executor/sandbox/mountattr", "executor/sandbox/private"},
	"executor/progress":          {"executor/event", "executor", "dockerfile", "snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/nearby", "registry/patience", "executor/cgroup", "executor/sandbox", "executor/filecopy", "executor/fetch"},
	"cmd/bob/help":               {},
	"cmd/bob":                    {"cmd/bob/help", "executor", "executor/account", "executor/command", "executor/memo", "executor/event", "executor/source", "executor/explain", "executor/cache", "executor/image", "executor/recipe", "executor/progress", "executor/sandbox", "executor/filecopy", "executor/fetch", "dockerfile", "snapshot", "snapshot/owners", "snapshot/bounded", "snapshot/pathwalk", "registry", "registry/certs", "registry/conf", "registry/oci", "registry/archive", "registry/nearby", "registry/patience", "registry/logins", "registry/proxy", "registry/serve", "registry/transfer", "executor/cgroup", "executor/binfmt", "executor/doctor", "executor/inputs", "executor/isolation", "executor/obstacle", "executor/sandbox/landlock", "executor/sandbox/mountattr", "executor/sandbox/private"},
	"integration":                {},
	"integration/harness":        {},
	"integration/bench":          {"integration/harness"},
	"integration/demo/show":      {},
	"integration/live":           {},

	"registry/patience/patiencetest": {},
	"snapshot/pathwalk/pathwalktest": {},
	"registry/internal/registrytest": {"registry/archive", "registry/certs", "registry/conf", "registry/oci", "registry/patience", "registry/patience/patiencetest", "registry/serve", "snapshot/bounded"},
}

// owners says which package alone may import a module directly.
var owners = map[string]string{
	"github.com/moby/buildkit":       "dockerfile",
	"github.com/opencontainers/runc": "executor/sandbox",
}

func TestArrows(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("go"))
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		may, known := arrows[name]
		if !known {
			may, known = arrows[outer(name)]
		}
		if !known {
			t.Errorf("package %s: no arrows are written down for it", name)
		}
		for _, d := range p.Deps {
			own, ok := strings.CutPrefix(d, module+"/")
			if ok && outer(own) != outer(name) && !slices.Contains(may, outer(own)) && !slices.Contains(may, own) {
				t.Errorf("package %s reaches %s", name, own)
			}
		}
		for _, i := range p.Imports {
			for module, owner := range owners {
				if (i == module || strings.HasPrefix(i, module+"/")) && outer(name) != owner {
					t.Errorf("package %s imports %s, which is %s's alone", name, i, owner)
				}
			}
		}
	}
}

// outer is the package that an internal one belongs to, whose arrows are its own unless it
// has some itself.
func outer(name string) string {
	owner, _, _ := strings.Cut(name, "/internal/")
	return owner
}

// listPackages lists the module's packages without their tests.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	root, err := harness.Module(t.Context())
	check(t, err)
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
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
