package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox"
)

// roots are root file systems as images have them.
var roots = map[string][][2]string{
	"bare": nil,
	"full": {
		{"proc/", ""},
		{"sys/", ""},
		{"dev/", ""},
		{"run/", ""},
		{"etc/resolv.conf", ""},
		{"etc/hosts", "own\n"},
		{"etc/hostname", "x\n"},
	},
	"no files in etc":          {{"etc/passwd", "root::0:0::/:/bin/sh\n"}},
	"systemd's dangling link":  {{"etc/resolv.conf", "->../run/systemd/resolve/stub-resolv.conf"}, {"run/", ""}},
	"absolute dangling link":   {{"etc/resolv.conf", "->/run/resolv.conf"}},
	"link to a link":           {{"etc/resolv.conf", "->a"}, {"etc/a", "->/x/y"}},
	"etc is a link":            {{"etc", "->private/etc"}, {"private/etc/", ""}},
	"etc is a dangling link":   {{"etc", "->/nonesuch/etc"}},
	"dev is a link":            {{"dev", "->other"}, {"other/", ""}},
	"nodes below dev":          {{"dev/null", ""}, {"dev/pts/", ""}, {"dev/shm/x", "y"}},
	"files that are not empty": {{"etc/resolv.conf", "nameserver 1.1.1.1\n"}},
}

func TestNoTraces(t *testing.T) {
	t.Parallel()
	for name, entries := range roots {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t, entries...)
			old := time.Unix(1_000_000_000, 123_456_789)
			for _, dir := range []string{"", "etc", "run", "bin"} {
				if err := os.Chtimes(filepath.Join(root, dir), old, old); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			before := tree(t, root)
			r := newRunner(t)
			for _, script := range []string{"true", "exit 1", "cat /etc/resolv.conf /etc/hosts /etc/hostname > /dev/null"} {
				err := r.Run(t.Context(), shell(root, script))
				var exit *sandbox.ExitError
				if err != nil && (script != "exit 1" || !errors.As(err, &exit)) {
					t.Errorf("%s: %v", script, err)
				}
				if after := tree(t, root); after != before {
					t.Errorf("%s: before:\n%safter:\n%s", script, before, after)
				}
			}
			if left := mountsBelow(t, root); len(left) > 0 {
				t.Errorf("left mounted: %q", left)
			}
		})
	}
}

// TestThreadsStay finds the threads of this process all in its own mount
// namespace, though libcontainer has them visit those of the containers.
func TestThreadsStay(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	root := newRoot(t)
	for range 5 {
		if err := r.Run(t.Context(), shell(root, "true")); err != nil {
			t.Fatal(err)
		}
	}
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	process, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if process != own {
		t.Errorf("the main thread is in %s, this one in %s", process, own)
	}
}

func TestChangesStay(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	err := newRunner(t).Run(t.Context(), shell(root, "echo x > /etc/own; mkdir /opt; rm /tmp/nonesuch; chmod 700 /run 2> /dev/null; true"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(names(t, root), " "), ". bin bin/busybox bin/sh bin/su bin/true etc etc/own opt tmp"; got != want {
		t.Errorf("tree is %s, want %s", got, want)
	}
	info, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(info.ModTime()); age > time.Hour {
		t.Errorf("the root is %s old, though the command changed it", age)
	}
}

func TestHostileRoots(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		entries func(outside string) [][2]string
		fails   bool // it need not work, only do no harm
	}{
		{"etc", func(o string) [][2]string { return [][2]string{{"etc", "->" + o}} }, false},
		{"etc, relative", func(o string) [][2]string { return [][2]string{{"etc", "->" + strings.Repeat("../", 20) + o}} }, false},
		{"resolv.conf", func(o string) [][2]string { return [][2]string{{"etc/resolv.conf", "->" + o + "/file"}} }, false},
		{"hosts, missing", func(o string) [][2]string { return [][2]string{{"etc/hosts", "->" + o + "/missing"}} }, false},
		{"dev", func(o string) [][2]string { return [][2]string{{"dev", "->" + o}} }, false},
		{"null", func(o string) [][2]string { return [][2]string{{"dev/null", "->" + o + "/file"}} }, false},
		{"proc", func(o string) [][2]string { return [][2]string{{"proc", "->" + o}} }, true},
		{"sys", func(o string) [][2]string { return [][2]string{{"sys", "->" + o}} }, true},
		{"mount target", func(o string) [][2]string { return [][2]string{{"target", "->" + o}} }, false},
		{"loop", func(string) [][2]string { return [][2]string{{"etc", "->etc"}} }, true},
		{"command", func(o string) [][2]string { return [][2]string{{"proc/self/", ""}, {"bin/x", "->" + o}} }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outside, "file"), []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			root := newRoot(t, test.entries(outside)...)
			beforeOutside, before := tree(t, outside), tree(t, root)
			p := shell(root, "echo >> /etc/hosts; echo > /dev/null; true")
			p.Dir = "/"
			p.Mounts = []sandbox.Mount{{Source: t.TempDir(), Target: "/target/x"}}
			if err := newRunner(t).Run(t.Context(), p); err != nil && !test.fails {
				t.Error(err)
			}
			if after := tree(t, outside); after != beforeOutside {
				t.Errorf("outside before:\n%sand after:\n%s", beforeOutside, after)
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestSwappedMountPoints has the command move what was made to mount on, and put
// something else in its place, while it is mounted: only what the run made itself
// may be removed, and never anything outside.
func TestSwappedMountPoints(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		want         string // the names in the root file system that are new
	}{
		{"nothing", "true", ""},
		{"for a link outside", "mv a z; ln -s OUT a", "a z z/b z/b/d z/b/f"},
		{"for a relative link outside", "mv a z; ln -s UPOUT a", "a z z/b z/b/d z/b/f"},
		{"deeper, for a link outside", "mv a/b a/z; ln -s OUT/b a/b", "a a/b a/z a/z/d a/z/f"},
		{"for a link to the root", "mv a z; ln -s / a; mkdir -p b/d; : > b/f", "a b b/d b/f z z/b z/b/d z/b/f"},
		{"for another directory", "mv a z; mkdir -p a/b/d; : > a/b/f", "a a/b a/b/d a/b/f z z/b z/b/d z/b/f"},
		{"for a file", "mv a z; : > a", "a z z/b z/b/d z/b/f"},
		{"for a link to itself", "mv a z; ln -s z a", "a z"},
		{"back again", "mv a z; mv z a", ""},
		{"beside something new", "echo x > a/new", "a a/new"},
		{"for a device's name", "mv a z; ln -s /dev a", "a z z/b z/b/d z/b/f"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			outside := t.TempDir()
			for _, dir := range []string{"d", "b/d"} {
				if err := os.MkdirAll(filepath.Join(outside, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, file := range []string{"f", "b/f"} {
				if err := os.WriteFile(filepath.Join(outside, file), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			host := t.TempDir()
			if err := os.WriteFile(filepath.Join(host, "file"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			root := newRoot(t)
			before, beforeOutside, beforeHost := names(t, root), tree(t, outside), tree(t, host)
			script := strings.NewReplacer("UPOUT", strings.Repeat("../", 30)+outside, "OUT", outside).Replace(test.script)
			p := shell(root, "set -e; cd /; test -e /a/b/d/file; test -s /a/b/f; "+script)
			p.Mounts = []sandbox.Mount{
				{Source: host, Target: "/a/b/d"},
				{Source: filepath.Join(host, "file"), Target: "/a/b/f"},
			}
			var out bytes.Buffer
			p.Stderr = &out
			if err := newRunner(t).Run(t.Context(), p); err != nil {
				t.Errorf("%v\n%s", err, &out)
			}
			if after := tree(t, outside); after != beforeOutside {
				t.Errorf("outside before:\n%sand after:\n%s", beforeOutside, after)
			}
			if after := tree(t, host); after != beforeHost {
				t.Errorf("source before:\n%sand after:\n%s", beforeHost, after)
			}
			added := slices.DeleteFunc(names(t, root), func(name string) bool { return slices.Contains(before, name) })
			if got := strings.Join(added, " "); got != test.want {
				t.Errorf("new are %q, want %q", got, test.want)
			}
			if left := mountsBelow(t, root); len(left) > 0 {
				t.Errorf("left mounted: %q", left)
			}
		})
	}
}

// names lists everything below dir.
func names(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(tree(t, dir)) {
		found = append(found, strings.Fields(line)[0])
	}
	return found
}

func TestHostileWorkingDirectory(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	before := tree(t, outside)
	root := newRoot(t, [2]string{"work", "->" + outside}, [2]string{outside + "/", ""})
	p := shell(root, "echo > file")
	p.Dir = "/work/new"
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if after := tree(t, outside); after != before {
		t.Errorf("outside before:\n%sand after:\n%s", before, after)
	}
	if _, err := os.Stat(filepath.Join(root, outside, "new/file")); err != nil {
		t.Error(err)
	}
}

// TestDescriptorAsWorkingDirectory tries whether one of those that start a
// container leads from its working directory to the machine's root.
func TestDescriptorAsWorkingDirectory(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("alive"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := newRoot(t)
	before := tree(t, root)
	for n := range 24 {
		var out bytes.Buffer
		p := shell(root, "/bin/busybox cat "+strings.Repeat("../", 30)+outside+"/file")
		p.Dir, p.Stdout = fmt.Sprintf("/proc/self/fd/%d", n), &out
		if err := newRunner(t).Run(t.Context(), p); err == nil || out.Len() > 0 {
			t.Errorf("in %s: %v, %q", p.Dir, err, &out)
		}
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// TestOverlay runs on a root file system as it really is: nothing but copies of
// unchanged directories may be in the upper directory afterwards.
func TestOverlay(t *testing.T) {
	t.Parallel()
	for name, entries := range roots {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRunner(t)
			lower, dir := newRoot(t, entries...), t.TempDir()
			root, upper, work := filepath.Join(dir, "root"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")
			for _, d := range []string{root, upper, work} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			options := "userxattr,lowerdir=" + lower + ",upperdir=" + upper + ",workdir=" + work
			if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
				t.Skipf("mount overlay: %v", err)
			}
			defer func() {
				err := unix.Unmount(root, 0)
				for errors.Is(err, unix.EBUSY) { // what another test has just forked still has the files of this one
					runtime.Gosched()
					err = unix.Unmount(root, 0)
				}
				if err != nil {
					t.Error(err)
				}
			}()
			before := tree(t, root)
			if err := r.Run(t.Context(), shell(root, "true")); err != nil {
				t.Error(err)
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
			for line := range strings.Lines(tree(t, upper)) {
				if !strings.Contains(before, line) && !strings.HasPrefix(line, ". ") {
					t.Errorf("in the upper directory: %s", line)
				}
			}
		})
	}
}
