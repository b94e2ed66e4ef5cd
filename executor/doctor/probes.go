package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox"
)

// The names of the probes that others depend on, or that depend on the mode.
const (
	entering  = "entering"
	running   = "run"
	notifying = "seccomp-notify"
	emulating = "binfmt"
)

// probes returns all probes in the order in which people read them.
func probes() []probe {
	return []probe{
		{name: "user-namespaces", what: "user namespaces", need: Optional, try: tryUserNamespace},
		{name: "id-ranges", what: "newuidmap, newgidmap and ranges of IDs", need: Optional, try: tryRanges},
		{name: entering, what: "entering bob's namespaces", need: Optional, entered: true, try: tryMode},
		{name: "mounts", what: "mounts", need: ForRUN, entered: true, try: tryMounts},
		{name: "cache-directory", what: "the cache directory", need: ForAll, try: tryDirectory},
		{name: "space", what: "free space and inodes", need: ForAll, try: trySpace},
		{name: "xattrs", what: "extended attributes in the cache directory", need: ForAll, entered: true, anywhere: true, try: tryXattrs},
		{name: "overlay", what: "overlays in the cache directory", need: Optional, entered: true, try: tryOverlay},
		{name: running, what: "RUN", need: ForRUN, entered: true, anywhere: true, try: tryRun},
		{name: "proc", what: "a /proc of its own for RUN", need: Optional, entered: true, namespaces: unix.CLONE_NEWPID | unix.CLONE_NEWNS, try: tryProc},
		{name: "sys", what: "a /sys of its own for RUN", need: Optional, entered: true, namespaces: unix.CLONE_NEWNET | unix.CLONE_NEWNS, try: trySys},
		{name: "pivot-root", what: "pivot_root", need: Optional, entered: true, try: tryPivotRoot},
		{name: "mount-api", what: "the new mount calls", need: Optional, entered: true, try: tryMountAPI},
		{name: "seccomp", what: "seccomp filters", need: ForRUN, entered: true, try: trySeccomp},
		{name: "landlock", what: "abstract sockets kept from RUN", need: Optional, entered: true, anywhere: true, try: tryScopes},
		{name: notifying, what: "seccomp notification", need: Optional, entered: true, try: tryNotify},
		{name: "network-namespace", what: "RUN --network=none", need: Optional, entered: true, namespaces: unix.CLONE_NEWNET, try: tryNetwork},
		{name: "private-network", what: "RUN --network=private", need: Optional, entered: true, try: tryPrivate},
		{name: "overlay-on-overlay", what: "overlays on overlays", need: Optional, entered: true, try: tryNestedOverlay},
		{name: "fuse", what: "/dev/fuse and fuse-overlayfs", need: Optional, entered: true, try: tryFuse},
		{name: emulating, what: "foreign architectures", need: Optional, entered: true, anywhere: true, try: tryEmulators},
		{name: "cgroup", what: "a cgroup to limit RUN with", need: Optional, entered: true, try: tryCgroup},
	}
}

// tryUserNamespace makes a user namespace with one ID, which takes no helper, in
// the way that Enter makes its own.
func tryUserNamespace(o *probeOrder) outcome {
	if o.Inside {
		// A security module may let a namespace be made and then refuse every
		// capability in it. This one is asked for by a call that no seccomp
		// filter refuses.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_WAKE_ALARM, 0, 0, 0); err != nil {
			return refusal(obstacle.OfNamespaces())
		}
		return yes("")
	}
	inside := *o
	inside.Inside = true
	cmd, err := inside.command(o.ctx)
	if err != nil {
		return no(err.Error(), "")
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err = isolation.TryUserNamespace(cmd)
	var out outcome
	switch {
	case json.Unmarshal(stdout.Bytes(), &out) == nil && out.Answer != "":
		return out
	case err != nil:
		return refusal(isolation.Reason(err))
	}
	return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: "the probe said nothing"}}
}

// tryRanges looks for what entering with more than one ID takes.
func tryRanges(*probeOrder) outcome {
	if os.Geteuid() == 0 {
		return yes("root needs none")
	}
	n, err := isolation.Ranges()
	if err != nil {
		return refusal(isolation.Reason(err))
	}
	return yes(fmt.Sprintf("%d IDs", n))
}

// tryMode tells what entering leads to.
func tryMode(o *probeOrder) outcome {
	out := yes("")
	switch {
	case !o.mode.CanMount():
		out = no("RUN gets "+o.mode.String()+": "+o.mode.Why(), "")
		if len(o.mode.Obstacles) > 0 {
			out.Obstacle.Fix = o.mode.Obstacles[0].Fix
		}
	case o.mode.OneID:
		out = yes("owners of files are emulated: " + o.mode.Why())
	default:
		n, err := isolation.CountIDs()
		if err != nil {
			return no(err.Error(), "")
		}
		if n < isolation.RangeSize {
			out = yes(fmt.Sprintf("only %d IDs: images with higher ones can't be built", n))
		}
	}
	out.Mode = o.mode
	return out
}

// tryEmulators tells which architectures' commands can be run.
func tryEmulators(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	detail, refused := binfmt.Survey(o.ctx, dir, o.mode)
	if refused != nil {
		return refusal(refused)
	}
	return yes(detail)
}

// tryRun runs this executable as the command of a RUN.
func tryRun(o *probeOrder) outcome {
	top, err := o.dir("")
	if err == nil && o.mode.CanMount() {
		if top, err = o.tmpfs(""); err != nil {
			return refusal(obstacle.OfMounts())
		}
	}
	if err != nil {
		return no(err.Error(), "")
	}
	root := filepath.Join(top, "root")
	if err := copyExecutable(root, "bob"); err != nil {
		return no(err.Error(), "")
	}
	r := &sandbox.Runner{Dir: filepath.Join(top, "state"), Mode: *o.mode}
	var said bytes.Buffer
	err = r.Run(o.ctx, &sandbox.Process{
		Root: root, Args: []string{"/bob"}, Env: []string{probeVariable + "={}"}, Stderr: &said,
	})
	// One that is linked dynamically lacks its libraries; by then everything that
	// is bob's to do has been done.
	var exit *sandbox.ExitError
	if errors.As(err, &exit) && strings.HasPrefix(said.String(), "exec /bob: "+unix.ENOENT.Error()) {
		err = nil
	}
	if err != nil {
		return no(strings.TrimSpace(err.Error()+" "+said.String()), "see what else this machine refuses")
	}
	if r.SeesOthers() {
		return yes("it sees the processes of others")
	}
	return yes("")
}

// copyExecutable makes dir, and copies this executable there.
func copyExecutable(dir, name string) (err error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer func() { _ = self.Close() }()
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as an image's
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o755) //nolint:gosec // it is executed
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, self)
	return err
}
