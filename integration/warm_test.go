package integration_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// warmCases are the cases that TestWarm takes without -warm: each kind of step and of
// place that files come from.
var warmCases = []string{
	"add-archive", "add-url", "arg-env-order", "copy-from", "copy-link", "duplicate-layers", "hardlinks",
	"heredoc-forms", "mount-many", "named-context", "onbuild-chain", "stages", "workdir-owner",
}

// TestWarm builds cases with an empty cache, again with the full one, and with another
// empty one: with SOURCE_DATE_EPOCH all have the same manifest, and the second runs
// nothing. It does so again with a file of the context changed.
func TestWarm(t *testing.T) {
	t.Parallel()
	names := warmCases
	if *allWarm {
		names = nil
		entries, err := os.ReadDir("testdata/cases")
		check(t, err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCase(t, filepath.Join("testdata/cases", name))
			cold, _ := c.buildWarm("a")
			if cold == broken {
				t.Fatal("the case can't be built")
			}
			warm, missed := c.buildWarm("a")
			if len(missed) > 0 {
				t.Errorf("missed the second time: %q", missed)
			}
			elsewhere, _ := c.buildWarm("b")
			if cold != warm || cold != elsewhere {
				t.Errorf("cold %s, warm %s, cold elsewhere %s", cold, warm, elsewhere)
			}
			if !c.changeFile() {
				return
			}
			warm, _ = c.buildWarm("a")
			cold, _ = c.buildWarm("c")
			if warm != cold {
				t.Errorf("with a file changed: warm %s, cold %s", warm, cold)
			}
		})
	}
}

// broken stands for the manifest of a build that fails, as it may when a file has been
// changed.
const broken = "none: the build fails"

// buildWarm builds the case with the cache of that name and returns the digest of the
// manifest and the steps that were run, with the reasons.
func (c *testCase) buildWarm(cache string) (manifest string, missed []string) {
	c.t.Helper()
	metadata := filepath.Join(c.dir, "metadata.json")
	args := append([]string{
		"build", "--progress=plain", "-t", c.ref, "-f", "Dockerfile", "--build-arg=SOURCE_DATE_EPOCH=1600000000",
		"--cache-dir=" + filepath.Join(c.dir, "cache-"+cache), "--explain-cache", "--metadata-file=" + metadata,
	}, c.flags...)
	result := c.bob(append(args, "context")...)
	if result.Code != 0 {
		c.t.Logf("exit code %d\n%s", result.Code, result.Stderr)
		return broken, nil
	}
	data, err := os.ReadFile(metadata)
	check(c.t, err)
	var m struct {
		Cache []struct {
			Step, Reason string
			Hit          bool
		} `json:"bob.cache"`
	}
	check(c.t, json.Unmarshal(data, &m))
	for _, step := range m.Cache {
		if !step.Hit {
			missed = append(missed, step.Step+": "+step.Reason)
		}
	}
	return strings.TrimSpace(result.Stdout), missed
}

// changeFile changes the first regular file of the context whose name doesn't begin
// with a dot, and reports whether there is one. One may be a secret, which no result
// depends on: a case with secrets keeps its files.
func (c *testCase) changeFile() bool {
	c.t.Helper()
	if slices.ContainsFunc(c.flags, func(flag string) bool { return strings.HasPrefix(flag, "--secret=") }) {
		return false
	}
	changed := false
	err := filepath.WalkDir(filepath.Join(c.dir, "context"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := f.WriteString("changed\n"); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil {
			return err
		}
		changed = true
		return fs.SkipAll
	})
	check(c.t, err)
	return changed
}
