package sandbox_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

// everyPlace are targets of mounts that each container has.
var everyPlace = []struct {
	target string
	file   bool
}{
	{"/dev", false},
	{"/dev/pts", false},
	{"/dev/shm", false},
	{"/dev/mqueue", false},
	{"/etc/hosts", true},
	{"/etc/hosts", false},
	{"/etc/hostname", true},
	{"/etc/resolv.conf", true},
	{"/sys", false},
}

// TestMountTakesPlace wants one mount at a place that both every container and the
// process have: that of the process.
func TestMountTakesPlace(t *testing.T) {
	t.Parallel()
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "own"), []byte("own\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, place := range everyPlace {
		kinds := map[string]sandbox.Mount{
			"bind":  {Source: source, Target: place.target},
			"tmpfs": {Kind: sandbox.Tmpfs, Target: strings.ReplaceAll(place.target, "/", "//./") + "/"},
		}
		if place.file {
			kinds = map[string]sandbox.Mount{
				"bind":   {Source: filepath.Join(source, "own"), Target: place.target},
				"memory": {Kind: sandbox.Memory, Target: place.target, File: sandbox.File{Content: []byte("own\n"), Mode: 0o444}},
			}
		}
		for name, m := range kinds {
			t.Run(fmt.Sprintf("%s on %s", name, place.target), func(t *testing.T) {
				t.Parallel()
				root := newRoot(t)
				before := tree(t, root)
				var out bytes.Buffer
				p := shell(root, withApplets(fmt.Sprintf("cut -d' ' -f5 /proc/self/mountinfo | grep -cx %s; [ ! -f %[1]s ] || cat %[1]s", place.target)))
				p.Mounts, p.Stdout, p.Stderr = []sandbox.Mount{m}, &out, &out
				want := "1\n"
				if place.file {
					want += "own\n"
				}
				if err := newRunner(t).Run(t.Context(), p); err != nil || out.String() != want {
					t.Errorf("%v, output is %q, want %q", err, &out, want)
				}
				if after := tree(t, root); after != before {
					t.Errorf("before:\n%safter:\n%s", before, after)
				}
			})
		}
	}
}

// TestMountOverDev wants the devices also in a /dev of the process's own.
func TestMountOverDev(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := shell(newRoot(t), withApplets("echo x > /dev/null; head -c 1 /dev/zero | wc -c; ls -d /dev/shm /dev/fd"))
	p.Mounts, p.Stdout, p.Stderr = []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/dev"}}, &out, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil || out.String() != "1\n/dev/fd\n/dev/shm\n" {
		t.Errorf("%v, output is %q", err, &out)
	}
}

// linksOfResolver are links that an image may have at /etc/resolv.conf, and whether
// there is a file at their ends in a container.
var linksOfResolver = []struct {
	link  string
	there bool
}{
	{"../run/systemd/resolve/stub-resolv.conf", true},
	{"/run/resolvconf/resolv.conf", true},
	{"../../../../nowhere/resolv.conf", true},
	{"/tmp/resolv.conf", true},
	{"/dev/shm/resolv.conf", true},
	{"/dev/resolv.conf", true},
	{"resolv.conf", false},
	{"/etc/resolv.conf", false},
	{"/proc/net/pnp", false},
	{"/proc/1/nothing", false},
	{"/sys/nothing", false},
}

// resolverScript says whether /etc/resolv.conf is there and has something in it.
const resolverScript = "[ -s /etc/resolv.conf ] && echo there || echo not there"

// checkResolvers runs the script with each link by run, which is given a root file
// system that must be as before afterwards.
func checkResolvers(t *testing.T, run func(t *testing.T, entries ...[2]string) string) {
	t.Helper()
	if info, err := os.Stat("/etc/resolv.conf"); err != nil || info.Size() == 0 {
		t.Skip("this machine has no name server")
	}
	for _, l := range linksOfResolver {
		t.Run(l.link, func(t *testing.T) {
			t.Parallel()
			want := "there\n"
			if !l.there {
				want = "not there\n"
			}
			if got := run(t, [2]string{"etc/resolv.conf", "->" + l.link}); got != want {
				t.Errorf("output is %q, want %q", got, want)
			}
		})
	}
}

// runRestored runs the script by r and returns its output.
func runRestored(t *testing.T, r *sandbox.Runner, root, script string) string {
	t.Helper()
	before := tree(t, root)
	var out bytes.Buffer
	p := shell(root, script)
	p.Stdout, p.Stderr = &out, &out
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	return out.String()
}

func TestResolverLinks(t *testing.T) {
	t.Parallel()
	checkResolvers(t, func(t *testing.T, entries ...[2]string) string {
		return runRestored(t, newRunner(t), newRoot(t, entries...), resolverScript)
	})
}

func TestInChrootResolverLinks(t *testing.T) {
	t.Parallel()
	checkResolvers(t, func(t *testing.T, entries ...[2]string) string {
		r, root := newChroot(t, entries...)
		return runRestored(t, r, root, resolverScript)
	})
}

// TestInChrootMountTakesPlace is TestMountTakesPlace where nothing is mounted: the
// place has what the process asked for, and the image is as before.
func TestInChrootMountTakesPlace(t *testing.T) {
	t.Parallel()
	for _, place := range everyPlace {
		t.Run(fmt.Sprintf("%s %t", place.target, place.file), func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t)
			before := tree(t, root)
			m := sandbox.Mount{Kind: sandbox.Tmpfs, Target: place.target}
			script, want := fmt.Sprintf("ls -A %s; echo x > %[1]s/f; cat %[1]s/f", place.target), "x\n"
			if place.file {
				m = sandbox.Mount{Kind: sandbox.Memory, Target: place.target, File: sandbox.File{Content: []byte("own\n"), Mode: 0o444}}
				// cat may hand the pages of a file over to the pipe, and those of a secret are wiped.
				script, want = "echo $(cat "+place.target+")", "own\n"
			}
			var out bytes.Buffer
			p := shell(root, script)
			p.Mounts, p.Stdout, p.Stderr = []sandbox.Mount{m}, &out, &out
			if err := r.Run(t.Context(), p); err != nil || out.String() != want {
				t.Errorf("%v, output is %q, want %q", err, &out, want)
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}
