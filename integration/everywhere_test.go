package integration_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/integration/harness"
)

var everywhere = flag.Bool("everywhere", false, "have TestEverywhere build everything in all environments")

// everywhereFiles are what is built everywhere: it takes packages with users, groups
// and set-ID programs; files with powers that go from stage to stage; owners; and devices
// and other odd files by every way into an image.
var everywhereFiles = map[string]string{
	"apt": "FROM $REGISTRY/debian\n" +
		"RUN apt-get update && apt-get install -y --no-install-recommends openssh-client && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*\n" +
		"RUN ssh -V && getent group _ssh && dpkg --verify openssh-client\n",
	"stages": "FROM $REGISTRY/debian AS src\n" +
		"RUN mkdir /c && echo x > /c/ping && setcap cap_net_raw+ep /c/ping && cp /bin/true /c/su && chown 0:5 /c/su && chmod 6755 /c/su && chown 7:8 /c\n" +
		"FROM $REGISTRY/busybox\nCOPY --from=src /c /c\nCOPY --from=src --chown=9:10 /c/su /su\nCOPY --chmod=4711 f /f\nRUN rm /c/su && ln -s f /l && mkfifo /p\n",
	"nodes": "FROM $REGISTRY/nodes AS base\n" +
		"RUN mkdir /made /made/d && cd /made && mknod -m 640 disk b 8 1 && mknod d/null c 1 3 && chmod 666 d/null && chown 3:4 d/null && mknod console c 5 1 && mkfifo fifo && " +
		"ln d/null null2 && mv /var/jail/dev/zero /var/jail/moved && chmod 620 /var/jail/dev/console && rm /dev/shm/x /var/jail/dev/sdb -f && ! mknod mark c 0 0; " +
		"echo lost > /var/jail/dev/null || true; touch -d @1600000000 /var/jail/dev/null\n" +
		"FROM scratch AS all\nCOPY --from=base / /\n" +
		"FROM $REGISTRY/busybox\nADD nodes.tar /added/\nADD --chown=9:10 nodes.tar /given/\nCOPY nodes /context/\nCOPY --from=base /dev/null /dev/sda /copied/\n" +
		"COPY --from=base --chown=7:8 --chmod=640 /var/jail /copied/jail\nCOPY --from=all /dev /all/dev\nCOPY --from=all /long /all/long\nCOPY --from=all /over /linked /su /ping /fifo /all/\n" +
		"RUN --mount=from=all,target=/mnt cp -p /mnt/su /mnt/mail / && ls /mnt/dev /mnt/var/jail /mnt/var/jail/dev /mnt/made > /listed && test -e /mnt/over\n" +
		"COPY --link --from=base /made /linked/\n",
	"users": "FROM $REGISTRY/busybox\n" +
		"RUN echo 'new:x:2000:2001::/home/new:/bin/sh' >> /etc/passwd && echo 'extra:x:2002:new' >> /etc/group && mkdir -m 1777 /u && mkdir /o && chown 2000:2002 /o\n" +
		"COPY --chown=new:extra f /o/f\nUSER new\nWORKDIR /o/w\nRUN id > /u/id && touch /o/mine && ! chown 0 /o/mine && cat /o/f\n" +
		"USER 0\nRUN chown 3:4 /u/id && mv /o /moved && rm /bin/sleep && mkdir /bin/sleep && chown 65533:65534 /bin/sleep\n",
}

// An environment is a place where bob runs.
type environment struct {
	name  string
	quick string // the files among everywhereFiles that are built there without -everywhere
	// want is the mode and the snapshotter that bob finds.
	want string
	// bob returns the command in the environment, in which dir is there.
	bob func(dir string, env []string, args ...string) (*exec.Cmd, error)
}

// environments returns those that this machine can make. bob is the binary, dir what
// they share.
func environments(t *testing.T, bob, dir string) []environment {
	confined := func(c harness.Confinement) func(string, []string, ...string) (*exec.Cmd, error) {
		return func(work string, env []string, args ...string) (*exec.Cmd, error) {
			if c.Overlay != "" {
				c.Overlay = filepath.Join(work, "cache")
				if err := os.MkdirAll(c.Overlay+".below", 0o777); err != nil {
					return nil, err
				}
			}
			return c.Command(t.Context(), dir, env, append([]string{bob}, args...)...)
		}
	}
	n := 0
	contained := func(c harness.Container) func(string, []string, ...string) (*exec.Cmd, error) {
		return func(work string, env []string, args ...string) (*exec.Cmd, error) {
			n++
			bundle := filepath.Join(work, fmt.Sprintf("bundle%d", n))
			c.Shared = []string{bob, dir}
			if err := os.Mkdir(bundle, 0o755); err != nil {
				return nil, err
			}
			return c.Command(t.Context(), bundle, dir, env, append([]string{bob}, args...)...)
		}
	}
	const stranger = 1234567
	newMounts := []int{unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT}
	rootless := func(run func(string, []string, ...string) (*exec.Cmd, error)) func(string, []string, ...string) (*exec.Cmd, error) {
		return func(work string, env []string, args ...string) (*exec.Cmd, error) {
			return run(work, append(env, "BOB_ROOTLESS=true"), args...)
		}
	}
	return []environment{
		{"user with ranges", "", "sandbox overlay", func(_ string, env []string, args ...string) (*exec.Cmd, error) {
			return lab.User.Command(t.Context(), dir, env, bob, args...), nil
		}},
		{"user without ranges", "", "sandbox one-ID overlay", confined(harness.Confinement{UID: stranger})},
		{"user with no_new_privs", "users nodes", "sandbox one-ID overlay", confined(harness.Confinement{UID: stranger, NoNewPrivs: true})},
		{"root", "", "sandbox overlay", confined(harness.Confinement{})},
		{"root --rootless", "", "sandbox overlay", rootless(confined(harness.Confinement{}))},
		{"root without CAP_SYS_ADMIN", "", "sandbox overlay", confined(harness.Confinement{Powerless: true})},
		{"workspace: few IDs, no open_tree", "users", "sandbox overlay", confined(harness.Confinement{OddIDs: true, Refuse: newMounts, Proc: true})},
		{"workspace --rootless", "", "sandbox overlay", rootless(confined(harness.Confinement{OddIDs: true, Refuse: newMounts}))},
		{"few IDs, max_user_namespaces=0", "", "chroot copy", confined(harness.Confinement{OddIDs: true, NoNamespaces: true, Powerless: true})},
		{"cache on an overlay", "", "sandbox fuse-overlayfs", confined(harness.Confinement{Overlay: "yes"})},
		{"user, cache on an overlay", "", "sandbox one-ID copy", confined(harness.Confinement{UID: stranger, Overlay: "yes"})},
		{"root, mounts refused", "", "chroot copy", confined(harness.Confinement{Refuse: []int{unix.SYS_MOUNT}})},
		{"runc, Docker's defaults", "users nodes", "chroot copy", contained(harness.Container{Runtime: "runc"})},
		{"crun, Docker's defaults", "", "chroot copy", contained(harness.Container{Runtime: "crun"})},
		{"runc, read-only root", "", "chroot copy", contained(harness.Container{Runtime: "runc", ReadOnly: true})},
		{"bob in bob", "", "chroot copy", nested(t, bob, dir, "nested", 1)},
		{"bob in an insecure RUN of bob", "", "sandbox overlay", nested(t, bob, dir, "nested-insecure", 1)},
		{"bob in bob in bob, insecure", "", "sandbox overlay", nested(t, bob, dir, "nested-insecure", 2)},
		{"runc, any UID, no powers", "", "none", contained(harness.Container{Runtime: "runc", UID: stranger, NoCaps: true, ReadOnly: true})},
	}
}

// TestEverywhere builds the same in all environments that it can make, and compares
// what comes out with what an ordinary user with ranges builds. It prints a table.
func TestEverywhere(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make other environments")
	}
	check(t, harness.Need("runc", "crun"))
	if *everywhere {
		check(t, harness.Need("fuse-overlayfs"))
	}
	b := newWorkbench(t)
	for _, image := range []string{"layers", "nodes", "debian"} {
		if _, err := lab.Image(t.Context(), image); image != "debian" || *everywhere {
			check(t, err)
		}
	}
	nodes, err := harness.Tar(harness.Nodes())
	check(t, err)
	b.write(map[string]string{"context/f": "f\n", "context/nodes.tar": string(nodes), "context/nodes/suid": "s\n", "context/nodes/" + strings.Repeat("n/", 500) + "deep": "d\n"})
	for name, text := range everywhereFiles {
		b.write(map[string]string{name: text})
	}
	bob, err := lab.Bob()
	check(t, err)
	if *everywhere {
		b.write(nestFiles())
		check(t, exec.CommandContext(t.Context(), "cp", bob, b.dir+"/bob").Run())
	}
	check(t, os.Chmod(b.dir+"/context/nodes/suid", 0o755|os.ModeSetuid))
	check(t, unix.Mkfifo(b.dir+"/context/nodes/fifo", 0o644))
	check(t, unix.Mknod(b.dir+"/context/nodes/socket", unix.S_IFSOCK|0o644, 0))
	check(t, exec.CommandContext(t.Context(), "chmod", "-R", "go+rX", b.dir).Run())
	all := environments(t, bob, b.dir)
	table := &everywhereTable{b: b, rows: make([]everywhereRow, len(all)), trees: map[string]harness.Tree{}}
	for i, e := range all {
		run := func(t *testing.T) { table.rows[i] = table.row(t, e, i == 0) }
		if i == 0 { // the others are compared with it
			t.Run(e.name, run)
			continue
		}
		if e.quick == "" && !*everywhere {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			run(t)
		})
	}
	t.Log("\n" + table.String())
}

// everywhereTable is what came out.
type everywhereTable struct {
	b     *workbench
	rows  []everywhereRow
	trees map[string]harness.Tree // of the first environment, by the file
}

type everywhereRow struct {
	name, mode string
	cells      map[string]string
}

func (table *everywhereTable) names() []string {
	names := make([]string, 0, len(everywhereFiles))
	for name := range everywhereFiles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (table *everywhereTable) String() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "environment\tmode\t%s\n", strings.Join(table.names(), "\t"))
	for _, r := range table.rows {
		if r.name == "" {
			continue
		}
		fmt.Fprintf(w, "%s\t%s", r.name, r.mode)
		for _, name := range table.names() {
			fmt.Fprintf(w, "\t%s", r.cells[name])
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // to a strings.Builder
	return out.String()
}

// row builds in the environment.
func (table *everywhereTable) row(t *testing.T, e environment, first bool) everywhereRow {
	t.Helper()
	r := everywhereRow{name: e.name, mode: e.want, cells: map[string]string{}}
	work, err := os.MkdirTemp(table.b.dir, "work") //nolint:usetesting // other users have to reach it
	check(t, err)
	check(t, os.Chmod(work, 0o755))
	for _, name := range []string{"cache", "cache.below", "home"} {
		check(t, os.Mkdir(filepath.Join(work, name), 0o700))
		check(t, os.Chmod(filepath.Join(work, name), 0o777))
	}
	t.Cleanup(func() { check(t, harness.RemoveAll(context.WithoutCancel(t.Context()), work)) })
	env := []string{"BOB_CACHE_SYNC=false", "HOME=" + work + "/home", "BOB_CACHE_DIR=" + work + "/cache", "PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	run := func(args ...string) (stdout, stderr string, err error) {
		cmd, err := e.bob(work, slices.Clip(env), args...)
		check(t, err)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		err = cmd.Run()
		return out.String(), said.String(), err
	}
	out, said, _ := run("doctor", "--format", "json")
	mode, why := foundMode(out)
	if mode != e.want {
		r.mode = "found " + mode
		t.Errorf("the mode is %q, want %q: %s\n%s", mode, e.want, why, said)
	}
	for _, name := range table.names() {
		quick := strings.Contains(e.quick, name)
		if !quick && !*everywhere && (!first || name == "apt" || name == "stages") {
			r.cells[name] = "-"
			continue
		}
		args := []string{"build", "--progress=plain", "-f", name, "-t", table.ref(e, name)}
		for _, proxy := range []string{"http_proxy", "https_proxy", "no_proxy"} {
			args = append(args, "--build-arg", proxy)
		}
		_, said, err := run(append(args, "context")...)
		r.cells[name] = table.cell(t, e, name, said, err, first)
		if name == "nodes" && r.cells[name] == "ok" && (first || *everywhere) && !strings.HasPrefix(e.name, "bob in") { // whose files stay inside
			table.outputs(t, work, table.ref(e, name), run)
		}
	}
	return r
}

// outputs wants the nodes the same in outputs of every type, and from a cache in another
// directory.
func (table *everywhereTable) outputs(t *testing.T, work, ref string, run func(args ...string) (string, string, error)) {
	t.Helper()
	out := filepath.Join(work, "out")
	check(t, os.Mkdir(out, 0o777))
	check(t, os.Chmod(out, 0o777))
	digest, said, err := run("build", "--progress=plain", "-f", "nodes", "-o", "type=oci,dest="+out+"/oci", "-o", "type=docker,dest="+out+"/docker",
		"-o", "type=tar,dest="+out+"/tar", "-o", "type=local,dest="+out+"/local", "--cache-to", "type=local,mode=max,dest="+out+"/shared", "context")
	if err != nil {
		t.Errorf("outputs: %v\n%s", err, said)
		return
	}
	want := table.trees["nodes"]
	for _, kind := range []string{"oci", "docker"} {
		dir := filepath.Join(out, kind+".d")
		check(t, os.Mkdir(dir, 0o700))
		check(t, exec.CommandContext(t.Context(), "tar", "-C", dir, "-xf", out+"/"+kind).Run())
		image, err := harness.ReadLayout(dir)
		check(t, err)
		if kind == "oci" && image.Digest.String() != strings.TrimSpace(digest) {
			t.Errorf("the OCI archive has %s, the build says %s", image.Digest, digest)
		}
		tree, err := harness.Flatten(image.Layers)
		check(t, err)
		for _, change := range tree.Changes(want) {
			t.Errorf("%s: compared with the first environment: %s", kind, change)
		}
	}
	f, err := os.Open(out + "/tar")
	check(t, err)
	defer f.Close()
	tree, err := harness.ReadTar(f)
	check(t, err)
	for _, change := range tree.Changes(want) {
		t.Errorf("tar: compared with the first environment: %s", change)
	}
	table.local(t, out+"/local", want, said)
	again, said, err := run("build", "--progress=plain", "-f", "nodes", "--cache-dir", out+"/cache", "--cache-from", "type=local,src="+out+"/shared", "-t", ref+"-again", "context")
	if err != nil || again != digest || !strings.Contains(said, " CACHED\n") {
		t.Errorf("from the cache: %v, the digest is %s, want %s\n%s", err, again, digest, said)
	}
}

// local wants the files of want in the directory dir, but for the devices that only root
// can make. The user's are named.
func (table *everywhereTable) local(t *testing.T, dir string, want harness.Tree, said string) {
	t.Helper()
	for name, e := range want {
		info, err := os.Lstat(filepath.Join(dir, name))
		device := e.Type == tar.TypeChar || e.Type == tar.TypeBlock
		switch {
		case device && os.IsNotExist(err):
			if !strings.Contains(said, "/out/local lacks the devices ") {
				t.Errorf("local lacks the device %s, and doesn't say so", name)
			}
		case err != nil:
			t.Errorf("local: %v", err)
		case device != (info.Mode()&os.ModeDevice != 0):
			t.Errorf("local: %s is %v", name, info.Mode())
		}
	}
}

// ref is where the environment pushes what is built of the file.
func (table *everywhereTable) ref(e environment, name string) string {
	return table.b.registry.Prefix + "/everywhere-" + strings.Trim(strings.Map(repository, strings.ToLower(e.name)), "-") + ":" + name
}

// foundMode returns the mode and the snapshotter of what bob doctor has printed, and
// why there is none.
func foundMode(doctor string) (mode, why string) {
	var d struct {
		Isolation, Snapshotter string
		OneID                  bool
		Findings               []struct{ Name, Why string }
	}
	if err := json.Unmarshal([]byte(doctor), &d); err != nil {
		return "", err.Error() + ": " + doctor
	}
	for _, f := range d.Findings {
		if f.Why != "" {
			why += f.Name + ": " + f.Why + "\n"
		}
	}
	mode = d.Isolation
	if d.OneID {
		mode += " one-ID"
	}
	return strings.TrimSpace(mode + " " + d.Snapshotter), why
}

// cell says what became of a build.
func (table *everywhereTable) cell(t *testing.T, e environment, name, said string, err error, first bool) string {
	t.Helper()
	_, reason, _ := strings.Cut(said, "ERROR: ")
	reason, _, _ = strings.Cut(reason, "\n")
	switch {
	case e.want == "none":
		if err == nil || !strings.Contains(reason, name+":2: RUN") {
			t.Errorf("%s: RUN isn't refused with its place: %v\n%s", name, err, said)
		}
		return "RUN is refused"
	case err != nil && matches("temporary failure resolving|could not connect|failed to fetch", said):
		return "no network"
	case err != nil:
		t.Errorf("%s: %v\n%s", name, err, said)
		return "FAILED: " + reason
	}
	image, err := lab.Pull(t.Context(), table.ref(e, name))
	check(t, err)
	for _, p := range imageProblems(image) {
		t.Errorf("%s: %s", name, p)
	}
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	if first {
		table.trees[name] = tree
		return "ok"
	}
	if table.trees[name] == nil {
		return "ok, nothing to compare with"
	}
	changes := tree.Changes(table.trees[name])
	for _, change := range changes {
		t.Errorf("%s: compared with the first environment: %s", name, change)
	}
	if len(changes) > 0 {
		return fmt.Sprintf("%d differences", len(changes))
	}
	return "ok"
}

// nested returns a function that runs bob in a RUN of bob, so many deep.
func nested(t *testing.T, bob, dir, dockerfile string, depth int) func(string, []string, ...string) (*exec.Cmd, error) {
	return func(_ string, env []string, args ...string) (*exec.Cmd, error) {
		env = append(env, "BOB="+bob, "NEST="+dockerfile, "BOB_ALLOW=security.insecure")
		return lab.User.Command(t.Context(), dir, env, "sh", append([]string{"nest.sh", strconv.Itoa(depth)}, args...)...), nil
	}
}

// nestFiles are what bob in bob takes. The context of every level is the whole
// directory, in which bob lies too.
func nestFiles() map[string]string {
	run := func(flags string) string {
		return "FROM $REGISTRY/busybox\nCOPY . /w\nARG LEVEL ARGS NEST\n" +
			"RUN " + flags + " --mount=type=tmpfs,target=/cache mkdir /r; cd /w; export BOB=/w/bob NEST HOME=/ BOB_CACHE_DIR=/cache BOB_ALLOW=security.insecure; " +
			"sh nest.sh $LEVEL $ARGS > /r/stdout 2> /r/stderr; echo $? > /r/code\n"
	}
	return map[string]string{
		"nested": run(""), "nested-insecure": run("--security=insecure"),
		".dockerignore": "work*\nhome\n",
		// nest.sh DEPTH ARGS… runs bob with ARGS in so many RUNs of bob.
		"nest.sh": "depth=$1; shift\n" +
			"test $depth != 0 || exec $BOB \"$@\"\n" +
			"out=$(mktemp -d)\n" +
			"$BOB build --progress=plain -o type=local,dest=$out --build-arg LEVEL=$((depth-1)) --build-arg ARGS=\"$*\" --build-arg NEST=$NEST -f $NEST . >&2 || exit 99\n" +
			"cat $out/r/stderr >&2; cat $out/r/stdout; code=$(cat $out/r/code); rm -rf $out; exit $code\n",
	}
}
