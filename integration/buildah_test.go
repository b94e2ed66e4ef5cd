package integration_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// What may differ between bob and buildah 1.28 in every image, and why:
//
//   - times, and so digests: each builds at its own moment;
//   - history: buildah writes other words, and one layer for a whole stage;
//   - the label io.buildah.version, which buildah adds;
//   - Healthcheck, OnBuild and Shell: the OCI format that buildah is asked for
//     has no such fields and it drops them, bob keeps them as BuildKit does;
//   - mode, owner and presence of /dev, /proc, /sys and /run and of
//     /etc/hosts, /etc/hostname and /etc/resolv.conf: buildah leaves the stubs
//     of what it mounts in the image (containers/buildah issue 4242), bob doesn't;
//   - attributes user.overlay.*: buildah leaves those of its overlay in the image.
//
// What differs in one case only stands in its buildah.txt.
var buildahStubs = []string{
	"dev", "proc", "sys", "run", "etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv", "run/secrets", "dev/pts", "dev/shm", "dev/mqueue",
}

// agreesWithBuildah builds the case with buildah too and compares config and
// flattened files with those of bob's image.
func (c *testCase) agreesWithBuildah(t *testing.T, ours *harness.Image) {
	t.Helper()
	check(t, harness.Need("buildah"))
	rules := readRules(t, filepath.Join(c.source, "buildah.txt"))
	if rules.skip != "" {
		t.Skip(rules.skip)
	}
	compareImages(t, ours, c.buildah(t), rules)
}

// A ruleSet is what a case's buildah.txt says.
type ruleSet struct {
	skip  string
	allow []string // path prefixes, or names of config fields
}

func readRules(t *testing.T, path string) ruleSet {
	t.Helper()
	body, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return ruleSet{}
	}
	check(t, err)
	var rules ruleSet
	for line := range strings.Lines(string(body)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch word {
		case "skip":
			rules.skip = rest
		case "allow":
			what, reason, ok := strings.Cut(rest, ": ")
			if !ok || reason == "" {
				t.Fatalf("%s: an allowed difference needs a reason: %q", path, line)
			}
			rules.allow = append(rules.allow, what)
		default:
			t.Fatalf("%s: want skip or allow: %q", path, line)
		}
	}
	return rules
}

// buildah builds the case as the same user, in the isolation that needs least,
// and reads the result from an OCI layout.
func (c *testCase) buildah(t *testing.T) *harness.Image {
	t.Helper()
	store := []string{
		"--root", c.dir + "/store", "--runroot", c.dir + "/runroot", "--storage-driver", "overlay",
	}
	run := func(args ...string) {
		result, _, err := lab.Run(t.Context(), harness.Invocation{
			Program: "buildah", Args: append(slices.Clone(store), args...), Dir: c.dir, Home: c.dir + "/buildah-home",
			Env: []string{"XDG_RUNTIME_DIR=" + c.dir + "/buildah-home", "TMPDIR=" + c.dir, lab.NoAuth()},
		})
		check(t, err)
		if result.Code != 0 {
			t.Fatalf("buildah %s: exit code %d\n%s%s", strings.Join(args, " "), result.Code, result.Stdout, result.Stderr)
		}
	}
	policy := c.dir + "/policy.json"
	check(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644))
	build := append([]string{
		"bud", "--isolation", "chroot", "--tls-verify=false", "--format", "oci", "--layers=false", "--network", "host",
		"--signature-policy", policy, "--build-arg", "REGISTRY=" + c.registry.Prefix, "-t", "built", "-f", "Dockerfile",
	}, c.flags...)
	run(append(build, "context")...)
	run("push", "--signature-policy", policy, "built", "oci:"+c.dir+"/buildah-layout:built")
	image, err := harness.ReadLayout(c.dir + "/buildah-layout")
	check(t, err)
	return image
}

func compareImages(t *testing.T, ours, theirs *harness.Image, rules ruleSet) {
	t.Helper()
	got, want := rendered(t, ours), rendered(t, theirs)
	keys := slices.Sorted(maps.Keys(got))
	for k := range want {
		if _, ok := got[k]; !ok {
			keys = append(keys, k)
		}
	}
	for _, k := range keys {
		if got[k] != want[k] && !slices.Contains(rules.allow, k) {
			t.Errorf("config field %s: bob has %s, buildah %s", k, got[k], want[k])
		}
	}
	mine, err := harness.Flatten(ours.Layers)
	check(t, err)
	other, err := harness.Flatten(theirs.Layers)
	check(t, err)
	for _, e := range other {
		maps.DeleteFunc(e.Xattrs, func(key, _ string) bool { return strings.HasPrefix(key, "user.overlay.") })
	}
	for _, change := range mine.Changes(other) {
		if !allowed(change, rules) {
			t.Errorf("files, from buildah's to bob's: %s", change)
		}
	}
}

// rendered returns the config's fields that both write, as JSON.
func rendered(t *testing.T, image *harness.Image) map[string]string {
	t.Helper()
	config := image.Config
	fields := map[string]any{
		"os": config.OS, "architecture": config.Architecture, "author": config.Author,
		"Env": config.Config.Env, "Cmd": config.Config.Cmd, "Entrypoint": config.Config.Entrypoint, "User": config.Config.User,
		"WorkingDir": config.Config.WorkingDir, "ExposedPorts": config.Config.ExposedPorts, "Volumes": config.Config.Volumes,
		"StopSignal": config.Config.StopSignal,
	}
	labels := maps.Clone(config.Config.Labels)
	delete(labels, "io.buildah.version")
	fields["Labels"] = labels
	texts := map[string]string{}
	for k, v := range fields {
		text, err := json.Marshal(v)
		check(t, err)
		texts[k] = strings.NewReplacer("null", "none", "{}", "none", "[]", "none").Replace(string(text))
	}
	return texts
}

func allowed(change string, rules ruleSet) bool {
	path := change[2:]
	if fields := strings.SplitN(path, " ", 4); len(fields) > 2 && change[0] != 'D' && strings.Contains(fields[1], ":") {
		path = fields[2]
	}
	if slices.Contains(buildahStubs, path) {
		return true
	}
	return slices.ContainsFunc(rules.allow, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}
