// Package pathwalktest has the paths and links that every kind of directory must
// withstand, for the tests of those who follow paths by package pathwalk.
package pathwalktest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Case is a path in a root directory with some entries.
type Case struct {
	// Entries has what is at a clean path from the root: a link to what follows "->",
	// or "/" for a directory, or "" for an empty file.
	Entries map[string]string
	Path    string
	Want    string // the clean path from the root that it leads to
	Err     error  // or why it leads nowhere
}

// String names the case.
func (c Case) String() string { return fmt.Sprintf("%v of %v", c.Path, c.Entries) }

// Names returns the paths of the entries, parents first.
func (c Case) Names() []string {
	var names []string
	for name := range c.Entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Lay makes the entries below the directory root.
func (c Case) Lay(t *testing.T, root string) {
	t.Helper()
	for _, name := range c.Names() {
		full := filepath.Join(root, name)
		var err error
		switch target, link := strings.CutPrefix(c.Entries[name], "->"); {
		case link:
			err = os.Symlink(target, full)
		case c.Entries[name] == "/":
			err = os.Mkdir(full, 0o700)
		default:
			err = os.WriteFile(full, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Cases returns what must neither lead out of the root nor go on for ever, where most
// links may be followed.
func Cases(most int) []Case {
	var all []Case
	for row := range strings.SplitSeq(strings.TrimSpace(table), "\n") {
		column := strings.Split(row, "|")
		c := Case{Entries: parse(column[0]), Path: strings.TrimSpace(column[1]), Want: strings.TrimSpace(column[2])}
		if c.Err = reasons[c.Want]; c.Err != nil {
			c.Want = ""
		}
		if c.Want == "/" {
			c.Want = ""
		}
		all = append(all, c)
	}
	return append(all,
		chain(most, nil), chain(most+1, unix.ELOOP),
		// Each link holds the next twice: as many are met as 2 to the power of 20.
		Case{Entries: doubling(20), Path: "l0", Err: unix.ELOOP},
		Case{Entries: parse("d/ l->" + strings.Repeat("./", 1000) + "d"), Path: "l", Want: "d"},
		Case{Entries: parse("d/ l->" + strings.Repeat("../", 1000) + "d"), Path: "l", Want: "d"},
		Case{Entries: parse("l->" + strings.Repeat("n", 256)), Path: "l", Err: unix.ENAMETOOLONG},
	)
}

// chain is a path through n links.
func chain(n int, err error) Case {
	entries := parse("d/")
	for i := range n {
		entries[fmt.Sprintf("l%03d", i)] = fmt.Sprintf("->l%03d", i+1)
	}
	entries[fmt.Sprintf("l%03d", n-1)] = "->d"
	c := Case{Entries: entries, Path: "l000", Want: "d", Err: err}
	if err != nil {
		c.Want = ""
	}
	return c
}

// doubling has n links that hold the next one twice.
func doubling(n int) map[string]string {
	entries := parse(fmt.Sprintf("l%d/", n))
	for i := range n {
		entries[fmt.Sprintf("l%d", i)] = fmt.Sprintf("->l%d/../l%d", i+1, i+1)
	}
	return entries
}

var reasons = map[string]error{"ENOENT": unix.ENOENT, "ENOTDIR": unix.ENOTDIR, "ELOOP": unix.ELOOP}

// table has entries, a path and where it leads, which is what openat2(2) with
// RESOLVE_IN_ROOT says.
const table = `
d/                        | d               | d
d/e/                      | d//./e/.        | d/e
d/e/                      | /d/e/           | d/e
d/                        | ..              | /
d/                        | ../../d         | d
d/e/                      | d/../../d/e     | d/e
d/                        | d/x             | ENOENT
d/                        | x/../d          | ENOENT
d/ f                      | f/../d          | ENOTDIR
d/ f                      | f/x             | ENOTDIR
d/ l->d                   | l               | d
d/ l->/d                  | l               | d
d/ l->///d                | l               | d
d/ l->./d/.               | l/              | d
d/ l->d//                 | l               | d
l->/                      | l               | /
l->.                      | l               | /
l->..                     | l               | /
l->../../..               | l/../..         | /
d/l->..                   | d/l             | /
d/l->../..                | d/l/d           | d
d/l->/..                  | d/l             | /
d/e/l->../../x x/y/       | d/e/l/y         | x/y
d/e/ l->d/e               | l/..            | d
d/e/ l->d/e x/            | l/../../x       | x
d/e/l->/d/e               | d/e/l/l/l       | d/e
d/l->/d                   | d/l/l/l/l       | d
d/e/ l->/../../d k->/l/.. | k/d/e           | d/e
l->l                      | l               | ELOOP
l->./l                    | l/x             | ELOOP
l->/l/x                   | l               | ELOOP
l->k k->l                 | l               | ELOOP
d/l->../d/l               | d/l             | ELOOP
l->x                      | l               | ENOENT
l->/x/y                   | l               | ENOENT
l->x/..                   | l               | ENOENT
l->/proc/self/root        | l/etc           | ENOENT
l->/etc/passwd            | l               | ENOENT
d/ f l->f/..              | l               | ENOTDIR
d/ f l->f                 | l/x             | ENOTDIR
d/ f l->d/../f            | l/../d          | ENOTDIR
..../ ...->....           | ...             | ....
`

// parse reads entries like "d/ f l->target". Their parents are directories.
func parse(list string) map[string]string {
	entries := map[string]string{}
	for word := range strings.FieldsSeq(list) {
		name, target, link := strings.Cut(word, "->")
		what := ""
		switch {
		case link:
			what = "->" + target
		case strings.HasSuffix(name, "/"):
			what = "/"
		}
		name = strings.Trim(name, "/")
		entries[name] = what
		for dir := filepath.Dir(name); dir != "."; dir = filepath.Dir(dir) {
			entries[dir] = "/"
		}
	}
	return entries
}
