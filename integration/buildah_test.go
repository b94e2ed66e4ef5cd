package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

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
//   - attributes user.overlay.*: buildah leaves the attributes of its overlay in the
//     image.
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
	name := filepath.Base(c.source)
	if rules.skip != "" {
		oracle.add(name, "skipped", rules.skip)
		t.Skip(rules.skip)
	}
	defer func() {
		if t.Failed() { // also when buildah doesn't build it at all
			oracle.add(name, "FAILS", "see above")
		}
	}()
	problems, used := differences(t, ours, c.buildah(t), rules)
	for _, p := range problems {
		t.Error(p)
	}
	switch {
	case len(problems) > 0:
	case len(used) > 0:
		oracle.add(name, "differs", strings.Join(used, "; "))
	default:
		oracle.add(name, "same", "")
	}
}

// A report collects what came of the comparisons, one line a case. Its methods
// may be called by several tests at once.
type report struct {
	mu   sync.Mutex
	rows [][3]string
}

// oracle is filled by TestCases and printed by TestMain.
var oracle report

func (r *report) add(name, verdict, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, [3]string{name, verdict, why})
}

// write lists the cases by name, and how many there are of each verdict.
func (r *report) write(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.rows, func(a, b [3]string) int { return strings.Compare(a[0], b[0]) })
	counts := map[string]int{}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range r.rows {
		fmt.Fprintln(table, strings.Join(row[:], "\t"))
		counts[row[1]]++
	}
	table.Flush()
	for _, verdict := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%d %s\n", counts[verdict], verdict)
	}
}

// A ruleSet is what a case's buildah.txt says.
type ruleSet struct {
	skip  string
	allow []rule
}

// A rule allows a difference: of paths with a prefix, or of a config field.
type rule struct {
	what, reason string
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
			rules.allow = append(rules.allow, rule{what, reason})
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
		"--signature-policy", policy, "-t", "built", "-f", "Dockerfile",
	}, c.flags...)
	run(append(build, "context")...)
	run("push", "--signature-policy", policy, "built", "oci:"+c.dir+"/buildah-layout:built")
	image, err := harness.ReadLayout(c.dir + "/buildah-layout")
	check(t, err)
	return image
}

// differences returns what differs and is not allowed, with the rules that
// allow nothing, and what is allowed and differs.
func differences(t *testing.T, ours, theirs *harness.Image, rules ruleSet) (problems, used []string) {
	t.Helper()
	unused := slices.Clone(rules.allow)
	note := func(allowed func(rule) bool, problem string) {
		i := slices.IndexFunc(rules.allow, allowed)
		if i < 0 {
			problems = append(problems, problem)
			return
		}
		if line := rules.allow[i].what + ": " + rules.allow[i].reason; !slices.Contains(used, line) {
			used = append(used, line)
		}
		unused = slices.DeleteFunc(unused, func(r rule) bool { return r == rules.allow[i] })
	}
	got, want := rendered(t, ours), rendered(t, theirs)
	for _, k := range slices.Sorted(maps.Keys(got)) {
		if got[k] != want[k] {
			note(func(r rule) bool { return r.what == k }, fmt.Sprintf("config field %s: bob has %s, buildah %s", k, got[k], want[k]))
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
		if path := changed(change); !slices.Contains(buildahStubs, path) {
			note(func(r rule) bool { return strings.HasPrefix(path, r.what) }, "files, from buildah's to bob's: "+change)
		}
	}
	for _, r := range unused {
		problems = append(problems, fmt.Sprintf("buildah.txt allows a difference of %q (%s) and there is none: remove the line", r.what, r.reason))
	}
	return problems, used
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

// changed returns the path of a line of Tree.Changes.
func changed(change string) string {
	path := change[2:]
	if fields := strings.SplitN(path, " ", 4); len(fields) > 2 && change[0] != 'D' && strings.Contains(fields[1], ":") {
		return fields[2]
	}
	return path
}
