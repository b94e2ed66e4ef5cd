package integration_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"github.com/rogpeppe/go-internal/txtar"
)

// A testCase is a directory of testdata/cases copied to a workbench.
type testCase struct {
	*workbench
	source string
	flags  []string
	web    string // where www is served, "" if the case doesn't say WEB
}

// newCase copies a case with settled modes, since those of a checkout follow
// its umask, and pushes the base images that its Dockerfile names.
func newCase(t *testing.T, source string) *testCase {
	t.Helper()
	c := &testCase{workbench: newWorkbench(t), source: source}
	context := filepath.Join(c.dir, "context")
	check(t, os.MkdirAll(context, 0o755))
	if _, err := os.Stat(filepath.Join(source, "context")); err == nil {
		check(t, copyTree(filepath.Join(source, "context"), context))
	}
	dockerfile, err := os.ReadFile(filepath.Join(source, "Dockerfile"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(c.dir, "Dockerfile"), dockerfile, 0o644))
	for _, match := range regexp.MustCompile(`\$\{?REGISTRY\}?/([a-z]+)`).FindAllSubmatch(dockerfile, -1) {
		_, err := lab.Image(t.Context(), string(match[1]))
		check(t, err)
	}
	flags, err := os.ReadFile(filepath.Join(source, "flags"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	c.flags = []string{"--build-arg=REGISTRY=" + c.registry.Prefix}
	if bytes.Contains(dockerfile, []byte("ARG WEB")) || bytes.Contains(flags, []byte("$WEB")) {
		check(t, harness.Need("git"))
		site := harness.Serve(filepath.Join(c.dir, "www"))
		t.Cleanup(site.Close)
		c.web = site.URL
		c.flags = append(c.flags, "--build-arg=WEB="+c.web)
	}
	for line := range strings.Lines(string(flags)) {
		c.flags = append(c.flags, strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "$WEB", c.web))
	}
	if script, err := filepath.Abs(filepath.Join(source, "setup.sh")); err == nil && exists(script) {
		setup := exec.CommandContext(t.Context(), "sh", "-eu", script)
		setup.Dir = context
		setup.Env = append(os.Environ(), harness.GitEnv...)
		if out, err := setup.CombinedOutput(); err != nil {
			t.Fatalf("run %s: %v\n%s", script, err, out)
		}
	}
	check(t, lab.User.Own(c.dir))
	return c
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return os.MkdirAll(target, 0o755)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.WriteFile(target, body, mode)
	})
}

// TestCases builds every case and compares what another client pulls with
// what is written down, or with -oracle with what buildah makes of it.
func TestCases(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata/cases")
	check(t, err)
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			c := newCase(t, filepath.Join("testdata/cases", e.Name()))
			args := append([]string{"build", "--progress=plain", "-t", c.ref, "-f", "Dockerfile"}, c.flags...)
			result := c.bob(append(args, "context")...)
			if result.Code != 0 {
				t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
			}
			image, err := lab.Pull(t.Context(), c.ref)
			check(t, err)
			if got, want := strings.TrimSpace(result.Stdout), image.Digest.String(); got != want {
				t.Errorf("bob printed %q, the registry has %q", got, want)
			}
			for _, p := range imageProblems(image) {
				t.Error(p)
			}
			if *withBuildah {
				c.agreesWithBuildah(t, image)
				return
			}
			c.compare(result, image)
		})
	}
}

// imageProblems lists what is wrong with an image of bob's, whatever was built.
func imageProblems(image *harness.Image) []string {
	var found []string
	steps := 0
	for _, h := range image.Config.History {
		if !h.EmptyLayer {
			steps++
		}
	}
	if steps != len(image.Layers) {
		found = append(found, fmt.Sprintf("history tells of %d layers, the image has %d", steps, len(image.Layers)))
	}
	for i, l := range image.Layers[baseLayers(image):] {
		for _, p := range l.Problems() {
			found = append(found, fmt.Sprintf("layer %d above the base: %s", i+1, p))
		}
	}
	oci := strings.HasPrefix(image.Manifest.MediaType, "application/vnd.oci.")
	for _, d := range append(slices.Clone(image.Manifest.Layers), image.Manifest.Config) {
		if strings.HasPrefix(d.MediaType, "application/vnd.oci.") != oci {
			found = append(found, "manifest of type "+image.Manifest.MediaType+" has a blob of type "+d.MediaType)
		}
	}
	return found
}

// baseLayers says how many of the image's layers are those of a base image,
// which the harness marks in the history.
func baseLayers(image *harness.Image) int {
	n := 0
	for _, h := range image.Config.History {
		if strings.HasSuffix(h.CreatedBy, harness.BaseMark) {
			n++
		}
	}
	return min(n, len(image.Layers))
}

// compare compares the sections of expect.txtar, or rewrites them.
func (c *testCase) compare(result harness.Result, image *harness.Image) {
	c.t.Helper()
	path := filepath.Join(c.source, "expect.txtar")
	expect, err := txtar.ParseFile(path)
	if err != nil {
		expect = &txtar.Archive{Files: []txtar.File{{Name: "config"}, {Name: "files"}}}
		if !*update {
			c.t.Fatalf("%v (make it with -update)", err)
		}
	}
	for i, section := range expect.Files {
		if section.Name == "output" {
			for pattern := range strings.Lines(string(section.Data)) {
				if !regexp.MustCompile("(?m)" + strings.TrimSpace(pattern)).MatchString(result.Stderr) {
					c.t.Errorf("no %q in\n%s", pattern, result.Stderr)
				}
			}
			continue
		}
		got := []byte(c.section(section.Name, image))
		if *update {
			expect.Files[i].Data = got
		} else if !bytes.Equal(got, section.Data) {
			c.t.Errorf("%s differs:\n%s", section.Name, difference(string(section.Data), string(got)))
		}
	}
	if *update {
		check(c.t, os.WriteFile(path, txtar.Format(expect), 0o644))
	}
}

func (c *testCase) section(name string, image *harness.Image) string {
	c.t.Helper()
	switch name {
	case "config":
		config, err := configText(image)
		check(c.t, err)
		config = strings.ReplaceAll(config, c.registry.Prefix, "$REGISTRY")
		if c.web != "" {
			config = strings.ReplaceAll(config, c.web, "$WEB")
		}
		return config
	case "files":
		tree, err := harness.Flatten(image.Layers)
		check(c.t, err)
		base, err := harness.Flatten(image.Layers[:baseLayers(image)])
		check(c.t, err)
		return text(tree.Changes(base))
	case "layers":
		return layersText(image.Layers[baseLayers(image):])
	}
	c.t.Fatalf("expect.txtar: no section is called %q", name)
	return ""
}

func text(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// layersText lists the names in each layer as they stand in its tar.
func layersText(layers []harness.Layer) string {
	var b strings.Builder
	for i, l := range layers {
		fmt.Fprintf(&b, "%d\n", i+1)
		for _, e := range l.Entries {
			fmt.Fprintf(&b, "\t%s\n", e.Name)
		}
	}
	return b.String()
}

// configText is the image's config without what depends on time, machine and contents.
func configText(image *harness.Image) (string, error) {
	var config map[string]any
	if err := json.Unmarshal(image.RawConfig, &config); err != nil {
		return "", err
	}
	for _, key := range []string{"created", "rootfs", "architecture"} {
		delete(config, key)
	}
	history, _ := config["history"].([]any)
	config["history"] = slices.DeleteFunc(history, func(h any) bool {
		entry, _ := h.(map[string]any)
		delete(entry, "created")
		by, _ := entry["created_by"].(string)
		return strings.HasSuffix(by, harness.BaseMark)
	})
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(config)
	return b.String(), err
}

// difference lists lines of want that are missing and lines of got that are too many.
func difference(want, got string) string {
	wanted, gotten := strings.Split(want, "\n"), strings.Split(got, "\n")
	var b strings.Builder
	for _, line := range wanted {
		if !slices.Contains(gotten, line) {
			fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range gotten {
		if !slices.Contains(wanted, line) {
			fmt.Fprintf(&b, "+ %s\n", line)
		}
	}
	if b.Len() == 0 {
		return "the same lines in another order:\n" + got
	}
	return b.String()
}
