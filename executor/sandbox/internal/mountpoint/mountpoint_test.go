package mountpoint_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
)

// layOut makes a root file system of words: "d/" is a directory, "l->t" a link and
// anything else a file. Everything in it is old.
func layOut(t *testing.T, words string) string {
	t.Helper()
	root := t.TempDir()
	for word := range strings.FieldsSeq(words) {
		name, target, link := strings.Cut(word, "->")
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(target, path)
		case strings.HasSuffix(word, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	old := time.Unix(1_000_000_000, 5)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// list names everything below root with its mode and the time of its last change.
func list(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err == nil {
			fmt.Fprintln(&b, strings.TrimPrefix(path, root), info.Mode(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func open(t *testing.T, root string) *mountpoint.Set {
	t.Helper()
	points, err := mountpoint.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return points
}

// TestNoTrace makes mount points and removes them.
func TestNoTrace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		words, target, resolved string
		made                    bool
	}{
		"a name in the root":      {"etc/", "/m", "/m", true},
		"several levels":          {"a/", "/a/b/c", "/a/b/c", true},
		"what is there":           {"a/b", "/a/b", "/a/b", false},
		"through a link":          {"usr/lib/ lib->usr/lib", "/lib/m", "/usr/lib/m", true},
		"through an absolute one": {"usr/lib/ lib->/usr/lib", "/lib/m", "/usr/lib/m", true},
		"through one that climbs": {"d/l->../../../../e e/", "/d/l/m", "/e/m", true},
		"a dangling link":         {"d/ l->d/gone", "/l", "/d/gone", true},
		"dots":                    {"d/", "/d/../../m", "/m", true},
	} {
		for _, isDir := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " ", isDir), func(t *testing.T) {
				t.Parallel()
				root := layOut(t, test.words)
				before := list(t, root)
				points := open(t, root)
				resolved, err := points.Resolve(test.target)
				if err != nil || resolved != test.resolved {
					t.Fatalf("resolved to %s, %v, want %s", resolved, err, test.resolved)
				}
				made, err := points.Make(resolved, isDir)
				if err != nil || made != test.made {
					t.Fatalf("made is %t, %v, want %t", made, err, test.made)
				}
				if info, err := os.Lstat(root + resolved); err != nil || test.made && info.IsDir() != isDir {
					t.Errorf("it is %v, %v", info, err)
				}
				if err := points.Remove(); err != nil {
					t.Error(err)
				}
				if after := list(t, root); after != before {
					t.Errorf("before:\n%safter:\n%s", before, after)
				}
			})
		}
	}
}

// TestCommandsChangesStay has the command do something with mount points, or beside them.
func TestCommandsChangesStay(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		isDir  bool
		change func(root string) error
		want   string // the names that are left
	}{
		"a file beside":     {true, func(root string) error { return os.WriteFile(root+"/d/new", nil, 0o644) }, "/d /d/new"},
		"a file in it":      {true, func(root string) error { return os.WriteFile(root+"/d/m/new", nil, 0o644) }, "/d /d/m /d/m/new"},
		"bytes":             {false, func(root string) error { return os.WriteFile(root+"/d/m", []byte("x"), 0o644) }, "/d /d/m"},
		"another mode":      {true, func(root string) error { return os.Chmod(root+"/d/m", 0o700) }, "/d /d/m"},
		"it is gone":        {true, func(root string) error { return os.Remove(root + "/d/m") }, "/d"},
		"another of a name": {false, func(root string) error { return os.Rename(root+"/x", root+"/d/m") }, "/d /d/m"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := layOut(t, "d/ x")
			points := open(t, root)
			if _, err := points.Make("/d/m", test.isDir); err != nil {
				t.Fatal(err)
			}
			if err := test.change(root); err != nil {
				t.Fatal(err)
			}
			if err := points.Remove(); err != nil {
				t.Error(err)
			}
			var names []string
			for line := range strings.Lines(list(t, root)) {
				if name, _, _ := strings.Cut(line, " "); name != "" && name != "/x" {
					names = append(names, name)
				}
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("left are %s, want %s", got, test.want)
			}
		})
	}
}

// TestCommandsTimeStays: the time that a command gave to a directory is not taken back,
// however many mount points there are in it.
func TestCommandsTimeStays(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 3; n++ {
		root := layOut(t, "d/")
		points := open(t, root)
		for i := range n {
			if _, err := points.Make(fmt.Sprintf("/d/m%d", i), true); err != nil {
				t.Fatal(err)
			}
		}
		given := time.Unix(1_100_000_000, 0)
		if err := os.Chtimes(root+"/d", given, given); err != nil {
			t.Fatal(err)
		}
		if err := points.Remove(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(root + "/d"); err != nil || !info.ModTime().Equal(given) {
			t.Errorf("%d mount points: got %v, %v, want the time %s", n, info, err, given)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	root := layOut(t, "d/ loop->loop self->/proc/self sys->sys2 sys2->/sys/x up->../../d")
	points := open(t, root)
	t.Cleanup(func() {
		if err := points.Remove(); err != nil {
			t.Error(err)
		}
	})
	for target, want := range map[string]bool{
		"/d": false, "/new": false, "/up": false, "/loop": true, "/loop/x": true, "/self/fd": true, "/sys2": true, "/proc": false,
	} {
		if got := points.Unreachable(target); got != want {
			t.Errorf("%s: %t, want %t", target, got, want)
		}
	}
	if _, err := points.Make("/", true); err == nil {
		t.Error("the root is a mount point")
	}
}
