package main

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bobbuild/bob/cmd/bob/help"
	"github.com/bobbuild/bob/cmd/bob/internal/cli"
)

// flagsOf returns the flags of all commands that usage shows, and the flags of each command by its name.
func flagsOf() (all map[string]bool, byCommand map[string][]string) {
	all, byCommand = map[string]bool{"help": true}, make(map[string][]string)
	for _, c := range cli.Commands(newRoot(strings.NewReader(""), io.Discard, io.Discard)) {
		if c.FlagSet == nil {
			continue
		}
		c.FlagSet.VisitAll(func(f *flag.Flag) {
			if f.Usage == cli.Hidden {
				return
			}
			all[f.Name] = true
			byCommand[c.FlagSet.Name()] = append(byCommand[c.FlagSet.Name()], f.Name)
		})
	}
	return all, byCommand
}

var (
	flagInPage     = regexp.MustCompile("[`[ ]--([a-z][a-z-]*)")
	variableInPage = regexp.MustCompile("BOB_([A-Z_]+)")
)

// otherFlags are the flags that pages name and that belong to a Dockerfile's instructions
// or to other programs.
var otherFlags = []string{
	"chmod", "chown", "from", "link", "mount", "parents", "security", "device", "checksum", // of instructions
	"installroot", "no-install-recommends", "user", "scope", // of dnf, apt-get, systemd-run
}

// Every flag stands in a page, and flags of bob build in build.md or workspace.md,
// and every flag that a page names exists.
func TestPagesNameFlags(t *testing.T) {
	t.Parallel()
	all, byCommand := flagsOf()
	told := make(map[string][]string) // by flag, the topics that name it
	for _, topic := range help.Topics() {
		for _, m := range flagInPage.FindAllStringSubmatch(topic.Text, -1) {
			told[m[1]] = append(told[m[1]], topic.Name)
			if !all[m[1]] && !slices.Contains(otherFlags, m[1]) {
				t.Errorf("%s.md names --%s, which no command has", topic.Name, m[1])
			}
		}
		for _, m := range variableInPage.FindAllStringSubmatch(topic.Text, -1) {
			name := strings.ToLower(strings.ReplaceAll(m[1], "_", "-"))
			told[name] = append(told[name], topic.Name)
		}
	}
	for command, flags := range byCommand {
		for _, name := range flags {
			if len(told[name]) == 0 {
				t.Errorf("no page names --%s of %s", name, command)
			} else if command == "bob build" && !slices.Contains(told[name], "build") && !slices.Contains(told[name], "workspace") {
				t.Errorf("build.md doesn't name --%s", name)
			}
		}
	}
}

// Lines fit a terminal, and headings have the form that the list of topics needs.
func TestPagesFit(t *testing.T) {
	t.Parallel()
	for _, topic := range help.Topics() {
		if !strings.HasPrefix(topic.Text, "# "+topic.Name+": ") {
			t.Errorf("%s.md doesn't begin with its topic", topic.Name)
		}
		for i, line := range strings.Split(topic.Text, "\n") {
			if n := utf8.RuneCountInString(line); n > 100 {
				t.Errorf("%s.md:%d has %d columns", topic.Name, i+1, n)
			}
		}
	}
}

var (
	linkInPage  = regexp.MustCompile(`\]\(([^)#]*)#?([^)]*)\)`)
	topicInPage = regexp.MustCompile("`bob help ([a-z]+)`")
	headings    = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// Links of the pages lead to files and headings that exist.
func TestPagesLink(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("help/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"../../*.md", "../../*/*.md", "../../*/*/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, more...)
	}
	if len(pages) < 10 {
		t.Fatalf("there are only %d pages", len(pages))
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkInPage.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := page
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(page), m[1])
			}
			linked, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s: %v", page, err)
			} else if m[2] != "" && !hasHeading(string(linked), m[2]) {
				t.Errorf("%s: %s has no heading %s", page, target, m[2])
			}
		}
		for _, m := range topicInPage.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join("help", m[1]+".md")); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

// hasHeading reports whether the text has a heading with the anchor, which is its
// words in lower case with dashes between them.
func hasHeading(text, anchor string) bool {
	for _, m := range headings.FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(strings.ToLower(m[1]), " ", "-") == anchor {
			return true
		}
	}
	return false
}

// A page on a terminal shows no marks of Markdown, and loses no text.
func TestRender(t *testing.T) {
	t.Parallel()
	got := help.Render("# cache: known\n\nUse `--no-cache`, **always**.\n\n    $ bob\n- a `b\n  c` d\n")
	want := "\x1b[1mcache: known\x1b[0m\n\nUse \x1b[1m--no-cache\x1b[0m, \x1b[1malways\x1b[0m.\n\n\x1b[2m    $ bob\x1b[0m\n- a `b\n  c` d\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
