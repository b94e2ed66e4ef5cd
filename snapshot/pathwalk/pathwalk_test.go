package pathwalk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/bobbuild/bob/snapshot/pathwalk/pathwalktest"
	"golang.org/x/sys/unix"
)

// kernelLinks is how many links the kernel follows.
const kernelLinks = 40

// memory is a place among the entries of a case.
type memory struct {
	pathwalk.Position

	entries map[string]string
}

func (m *memory) Down(name string, w *pathwalk.Walk) (string, bool, error) {
	what, ok := m.entries[m.Join(name)]
	target, link := strings.CutPrefix(what, "->")
	switch {
	case len(name) > unix.NAME_MAX:
		return "", false, unix.ENAMETOOLONG
	case !ok:
		return "", false, unix.ENOENT
	case link:
		return target, true, nil
	case what == "" && !w.Last():
		return "", false, unix.ENOTDIR
	}
	m.Path = m.Join(name)
	return "", false, nil
}

// inMemory returns where the path of c leads.
func inMemory(c pathwalktest.Case, most int) (string, error) {
	m := &memory{entries: c.Entries}
	err := pathwalk.New(most).Along(c.Path, m)
	return m.Path, err
}

// byKernel returns where p leads from root as if that were "/". The kernel says so.
func byKernel(t *testing.T, root, p string) (string, error) {
	t.Helper()
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if p = strings.TrimLeft(p, "/"); p == "" {
		p = "."
	}
	fd, err := unix.Openat2(int(dir.Fd()), p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skip("no openat2 here:", err)
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	got, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(strings.TrimPrefix(got, root), "/"), nil
}

func TestCases(t *testing.T) {
	t.Parallel()
	for _, c := range pathwalktest.Cases(kernelLinks) {
		root := tempDir(t)
		c.Lay(t, root)
		for who, f := range map[string]func() (string, error){
			"the kernel": func() (string, error) { return byKernel(t, root, c.Path) },
			"the walk":   func() (string, error) { return inMemory(c, kernelLinks) },
		} {
			if got, err := f(); !errors.Is(err, c.Err) || err == nil && got != c.Want {
				t.Errorf("%s: %s says %q, %v, want %q, %v", c, who, got, err, c.Want, c.Err)
			}
		}
	}
}

// tempDir is a directory whose path has no link.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestAhead checks what a walk tells of the way before it.
func TestAhead(t *testing.T) {
	t.Parallel()
	spy := &spy{memory: memory{entries: map[string]string{"a": "/", "a/l": "->../b//./", "b": "/", "b/c": "/"}}}
	if err := pathwalk.New(1).Along("/a/.//l/c/..//c/.", spy); err != nil {
		t.Fatal(err)
	}
	want := `a last=false returns=false rest=l/c
l last=false returns=false rest=c
b last=false returns=false rest=c
c last=false returns=true rest=../c
c last=true returns=false rest=
`
	if spy.told.String() != want {
		t.Errorf("told\n%swant\n%s", spy.told.String(), want)
	}
}

// spy notes what it is told.
type spy struct {
	memory

	told strings.Builder
}

func (s *spy) Down(name string, w *pathwalk.Walk) (string, bool, error) {
	fmt.Fprintf(&s.told, "%s last=%t returns=%t rest=%s\n", name, w.Last(), w.Returns(), w.Rest())
	return s.memory.Down(name, w)
}

// FuzzWalk wants paths through a few directories and links to lead where the kernel
// says.
func FuzzWalk(f *testing.F) {
	for _, c := range pathwalktest.Cases(3) {
		f.Add(c.Path, c.Entries["l"], c.Entries["d/l"], c.Entries["k"])
	}
	f.Fuzz(func(t *testing.T, p, l, inD, k string) {
		c := pathwalktest.Case{Path: p, Entries: map[string]string{"d": "/", "d/e": "/", "d/f": "", "f": "", "x": "/"}}
		size := len(p)
		for name, target := range map[string]string{"l": l, "d/l": inD, "k": k} {
			target = strings.TrimPrefix(target, "->")
			size += len(target)
			if target != "" {
				c.Entries[name] = "->" + target
			}
		}
		if size > 1000 || strings.ContainsRune(p+l+inD+k, 0) {
			t.Skip("no path")
		}
		root := tempDir(t)
		c.Lay(t, root)
		want, wantErr := byKernel(t, root, p)
		got, err := inMemory(c, kernelLinks)
		if errors.Is(wantErr, unix.ENOTDIR) && err == nil && c.Entries[got] == "" {
			return // the kernel minds a slash behind a file
		}
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Errorf("%s: leads to %q, %v; the kernel says %q, %v", c, got, err, want, wantErr)
		}
	})
}
