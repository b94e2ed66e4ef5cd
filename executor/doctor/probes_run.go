package doctor

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox"
)

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
