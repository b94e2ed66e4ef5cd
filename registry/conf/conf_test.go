package conf_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// read reads files of a registries.conf.
func read(t *testing.T, texts ...string) (*conf.Rules, error) {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for i, text := range texts {
		path := filepath.Join(dir, string(rune('a'+i))+".conf")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return conf.Read(t.Context(), paths...)
}

// pullSites are where ref is looked for, in words.
func pullSites(c *conf.Rules, ref string) (string, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return "", err
	}
	sites, err := c.PullSites(parsed)
	var words []string
	for _, at := range sites {
		text := reference.String(at.Ref)
		if at.Insecure {
			text += " insecure"
		}
		if at.Mirror {
			text += " mirror"
		}
		words = append(words, text)
	}
	return strings.Join(words, ", "), err
}

func TestBadConf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[[registry] x":                   "line 1",
		"x = 1\ny = \"":                   "line 2",
		"[[registry]]\nprefx = \"a\"":     `unknown setting "registry.prefx"`,
		"[[registry]]\ninsecure = true\n": "[[registry]] 1: it has neither prefix nor location",
		"[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\ninsecure = true":              "mirror 1 of a.b has no location",
		"[[registry]]\nlocation = \"https://a.b\"":                                            "without a scheme",
		"[[registry]]\nlocation = \"a.b\"\ninsecure = \"yes\"":                                "insecure",
		"[[registry]]\nlocation = \"a\"\nmirror = [{location=\"b\",pull-from-mirror=\"no\"}]": "digest-only",
		"[[registry]]\nlocation = \"mirror/cache\"":                                           `"mirror" isn't the name of a host`,
		"[registries.search]\nregistries = [\"a.b\"]":                                         "version 1",
	} {
		_, err := read(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.conf: ") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := conf.Read(t.Context(), filepath.Join(t.TempDir(), "none.conf")); err == nil || !strings.Contains(err.Error(), "none.conf: no such file") {
		t.Errorf("missing file: %v", err)
	}
}

func TestConfPlaces(t *testing.T) {
	t.Parallel()
	c, err := read(t, `
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json", "pass"]
[aliases]
"x" = "y/x"
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.test:5000/hub"
insecure = true
[[registry]]
location = "quay.io/team/"
[[registry.mirror]]
location = "one.test"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "two.test/x"
pull-from-mirror = "tag-only"
[[registry]]
location = "quay.io/team/secret"
mirror-by-digest-only = true
mirror = [{location = "three.test"}]
[[registry]]
prefix = "*.corp.test"
[[registry.mirror]]
location = "cache.test"
[[registry]]
prefix = "a.corp.test"
location = "b.test/other"
[[registry]]
location = "insecure.test:80"
insecure = true
[[registry]]
location = "replaced.test"
`, `
[[registry]]
location = "replaced.test"
insecure = true
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Ignored) != 1 || !strings.Contains(c.Ignored[0], "credential-helpers") {
		t.Errorf("ignored: %q", c.Ignored)
	}
	digest := "@sha256:" + strings.Repeat("0", 64)
	for ref, want := range map[string]string{
		"debian":                           "mirror.test:5000/hub/library/debian:latest insecure mirror, docker.io/library/debian:latest",
		"docker.io/a/b" + digest:           "mirror.test:5000/hub/a/b" + digest + " insecure mirror, docker.io/a/b" + digest,
		"quay.io/team/app:1":               "two.test/x/app:1 mirror, quay.io/team/app:1",
		"quay.io/team/app:1" + digest:      "one.test/app" + digest + " mirror, quay.io/team/app" + digest,
		"quay.io/team2/app:1":              "quay.io/team2/app:1",
		"quay.io:443/team/app:1":           "quay.io:443/team/app:1",
		"quay.io/team/secret:1":            "quay.io/team/secret:1",
		"quay.io/team/secret" + digest:     "mirror three.test in FILE: as the prefix is a whole repository, it has to be one too",
		"x.corp.test/app:1":                "cache.test/app:1 mirror, x.corp.test/app:1",
		"x.corp.test:5000/app:1":           "x.corp.test:5000/app:1",
		"a.corp.test/app:1":                "b.test/other/app:1",
		"corp.test/app:1":                  "corp.test/app:1",
		"insecure.test:80/app:1":           "insecure.test:80/app:1 insecure",
		"insecure.test:8080/app:1":         "insecure.test:8080/app:1",
		"insecure.test/app:1":              "insecure.test/app:1",
		"replaced.test/app:1":              "replaced.test/app:1 insecure",
		"unknown.test:5000/team/secret/x":  "unknown.test:5000/team/secret/x:latest",
		"mirror.test:5000/hub/library/app": "mirror.test:5000/hub/library/app:latest",
	} {
		text, err := pullSites(c, ref)
		if err != nil {
			text = regexp.MustCompile(` in /\S*:`).ReplaceAllString(err.Error(), " in FILE:")
		}
		if text != want {
			t.Errorf("%s:\n got %s\nwant %s", ref, text, want)
		}
	}
}

// A file of rules may be anything that is named, but not without end.
func TestFilesAreBounded(t *testing.T) {
	t.Parallel()
	endless := filepath.Join(t.TempDir(), "x.conf")
	if err := os.Symlink("/dev/zero", endless); err != nil {
		t.Fatal(err)
	}
	_, err := conf.Read(t.Context(), endless)
	if !errors.As(err, new(*bounded.LimitError)) || !strings.Contains(err.Error(), endless) {
		t.Error(err)
	}
}
