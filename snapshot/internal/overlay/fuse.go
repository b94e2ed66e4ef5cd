package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// fuseProgram makes overlays where the kernel allows FUSE only.
const fuseProgram = "fuse-overlayfs"

// A FuseMount is an overlay that a process of fuse-overlayfs serves.
type FuseMount struct {
	Mount

	lower    []string
	owners   owners.Keeper
	marks    layers.Marks
	since    unix.Timespec // when it was mounted
	process  *os.Process
	ended    chan struct{} // closed when the process is gone
	messages bytes.Buffer  // of the process, to be read then
}

// NewFuse mounts o, whose directories lie in dir, by fuse-overlayfs. Files there have
// owners as the keeper says, and the lower directories have the marks. The process ends
// with this one.
func NewFuse(ctx context.Context, o Dirs, dir string, keeper owners.Keeper, marks layers.Marks) (*FuseMount, error) {
	program, err := exec.LookPath(fuseProgram)
	if err != nil {
		return nil, fmt.Errorf("install the package %s: %w", fuseProgram, err)
	}
	var before unix.Stat_t // of a directory made just now
	if err := unix.Stat(o.Target, &before); err != nil {
		return nil, &os.PathError{Op: "stat", Path: o.Target, Err: err}
	}
	m := &FuseMount{
		Mount: Mount{target: o.Target}, lower: o.Lower, owners: keeper, marks: marks,
		since: before.Ctim, ended: make(chan struct{}),
	}
	//nolint:gosec,forbidigo // this snapshotter is another program
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "-f", "-o", fuseOptions(o, dir), o.Target)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &m.messages, &m.messages
	// In a process group of its own it isn't interrupted from the terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := m.run(cmd); err != nil {
		return nil, err
	}
	for {
		// While the process isn't there yet the answer is the directory's.
		var now unix.Stat_t
		if err := unix.Stat(o.Target, &now); err != nil {
			return nil, errors.Join(&os.PathError{Op: "stat", Path: o.Target, Err: err}, m.kill())
		}
		if now.Dev != before.Dev {
			return m, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("%s can't mount at %s: %s", fuseProgram, o.Target, m.said())
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), m.kill())
		case <-time.After(time.Millisecond):
		}
	}
}

// fuseOptions returns the options that say what o is. Paths in them are relative to dir,
// which keeps characters that mean something in options out.
func fuseOptions(o Dirs, dir string) string {
	rel := func(path string) string { return strings.TrimPrefix(path, dir+"/") }
	lower := make([]string, 0, len(o.Lower))
	for _, l := range o.Lower {
		lower = append(lower, rel(l))
	}
	options := "lowerdir=" + strings.Join(lower, ":")
	if o.Upper != "" {
		options += ",volatile,upperdir=" + rel(o.Upper) + ",workdir=" + rel(o.Work)
	}
	return options
}

// run starts cmd. The thread that does so lives as long as the process: with it
// the kernel would end the process (Pdeathsig).
func (m *FuseMount) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		m.process = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // what it says counts
			close(m.ended)
		}
	}()
	return <-started
}

// said returns what the process, which is gone, has written.
func (m *FuseMount) said() string {
	return strings.Join(strings.Fields(m.messages.String()), " ")
}

// kill ends the process.
func (m *FuseMount) kill() error {
	err := m.process.Kill()
	<-m.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// exitTime is how long the process may take to end after it has nothing to serve.
const exitTime = time.Second

// Settle unmounts the overlay and brings the layer into overlay format.
func (m *FuseMount) Settle(layer string) error {
	if !m.gone {
		if err := m.flush(); err != nil {
			return err
		}
		if err := m.Mount.Settle(layer); err != nil {
			return err
		}
		select {
		case <-m.ended:
		case <-time.After(exitTime): // another mount namespace has a copy of the mount
		}
		if err := m.kill(); err != nil {
			return err
		}
	}
	fd, err := unix.Open(layer, file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: layer, Err: err}
	}
	defer unix.Close(fd)
	l := fuseLayer{layers.New(m.lower, m.owners, m.marks), descent.From(fd), m.since}
	defer l.lower.Close()
	defer l.at.Close()
	if err := l.directory("", l.lower.Root()); err != nil {
		return fmt.Errorf("read what %s has left in %s: %w", fuseProgram, layer, err)
	}
	return nil
}

// flush has the process write all that the kernel still holds back.
func (m *FuseMount) flush() error {
	f, err := os.Open(m.target)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// End takes the overlay away at once, whoever uses it, and ends its process.
func (m *FuseMount) End() error {
	if m.gone {
		return nil
	}
	return errors.Join(m.Mount.End(), m.kill())
}

// fuseXattrs begins the names of attributes of fuse-overlayfs.
const fuseXattrs = "user.fuseoverlayfs."

// fuseLayer brings what fuse-overlayfs has made into overlay format. That program marks a
// directory in several ways at once, notes which files it has copied up, copies up what
// has lost one of its names, changes the time of a directory when it copies something
// into it, and takes set-ID bits from directories that it copies. The last three can't be
// told from what a step may do itself, but a step hardly has a reason to.
type fuseLayer struct {
	lower *layers.Stack
	at    *descent.Path
	since unix.Timespec // when it was mounted
}

// directory does so for the directory at path, where l.at is, and those below. d is what
// it is merged with.
func (l *fuseLayer) directory(path string, d layers.Dir) error {
	fd := l.at.FD()
	if err := dropXattrs(func(name string) error { return unix.Fremovexattr(fd, name) }); err != nil {
		return err
	}
	a, err := file.ReadAttrs(fd, l.lower.Owners)
	if err != nil {
		return err
	}
	opaque, err := layers.Exists(fd, layers.OpaqueName)
	if err != nil {
		return err
	}
	if opaque {
		d = layers.Dir{}
	}
	names, err := descent.Names(fd)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	copied := d.Exists() && len(names) > 0 // nothing has happened here but copying
	for _, name := range names {
		c, err := l.entry(relpath.Join(path, name), d)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		copied = copied && c
	}
	fd = l.at.FD() // another one, if the way back led through ..
	switch {
	case opaque:
		if err := l.lower.Marks.MakeOpaque(fd); err != nil {
			return err
		}
	case d.Exists():
		below, err := l.lower.Attrs(d)
		if err != nil {
			return err
		}
		const setID = unix.S_ISUID | unix.S_ISGID
		if a.Mode == below.Mode&^setID {
			a.Mode = below.Mode
		}
		if copied && a.Mtime.Nano() >= l.since.Nano() {
			a.Mtime = below.Mtime
		}
	}
	return a.Apply(fd, false, l.lower.Owners)
}

// entry does so for the entry at path, in the directory where l.at is, which is merged
// with d. It reports whether all that has happened to it is that it was copied up.
func (l *fuseLayer) entry(path string, d layers.Dir) (copied bool, err error) {
	fd := l.at.FD()
	_, name := relpath.Split(path)
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if name == layers.OpaqueName && l.lower.Marks == layers.DeviceMarks || name == ".wh..opq" {
		return false, unix.Unlinkat(fd, name, 0)
	}
	hidden, isMark := l.lower.Marks.MarkOf(name)
	if !isMark {
		hidden = name
	}
	e, ok, err := l.lower.Lookup(d, hidden)
	if err != nil {
		return false, err
	}
	if (isMark && name != layers.OpaqueName || layers.IsWhiteout(fd, name, &st)) && !ok { // it has been renamed
		return false, unix.Unlinkat(fd, name, 0)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := l.at.Down(name); err != nil {
			return false, err
		}
		isNew, err := layers.Exists(l.at.FD(), layers.OpaqueName)
		if err == nil {
			err = l.directory(path, e.Dir)
		}
		if err != nil {
			return false, err
		}
		return ok && !isNew, l.at.Up()
	case unix.S_IFREG:
		file := file.Path(fd, name)
		_, err := unix.Lgetxattr(file, fuseXattrs+"origin", nil)
		copied = ok && err == nil
		if err := dropXattrs(func(name string) error { return unix.Lremovexattr(file, name) }); err != nil || !copied {
			return copied, err
		}
		if st.Nlink == 1 && e.Stat.Nlink > 1 {
			same, err := l.same(fd, name, path, e)
			if err != nil {
				return false, err
			}
			if same {
				err = unix.Unlinkat(fd, name, 0)
			}
			return copied, err
		}
		return copied, nil
	}
	return false, nil
}

// same reports whether the file name of the directory fd is as the one at path that it
// was copied from, which has other names too.
func (l *fuseLayer) same(fd int, name, path string, from layers.Entry) (bool, error) {
	var st unix.Stat_t
	if err := l.lower.Owners.Fstatat(fd, name, &st); err != nil {
		return false, err
	}
	if st.Mode != from.Stat.Mode || st.Uid != from.Stat.Uid || st.Gid != from.Stat.Gid || st.Size != from.Stat.Size || st.Mtim != from.Stat.Mtim {
		return false, nil
	}
	root, err := l.lower.FD(from.Layer)
	if err != nil {
		return false, err
	}
	below, err := file.OpenRegular(root, path, l.lower.Owners)
	if err != nil {
		return false, err
	}
	defer below.Close()
	here, err := file.OpenRegular(fd, name, l.lower.Owners)
	if err != nil {
		return false, err
	}
	defer here.Close()
	return file.Same(below, here, make([]byte, 1<<16))
}

// dropXattrs removes the attributes of fuse-overlayfs from a file by remove.
func dropXattrs(remove func(name string) error) error {
	for _, name := range []string{fuseXattrs + "opaque", fuseXattrs + "origin", "trusted.overlay.opaque"} {
		err := remove(name)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("remove extended attribute %s: %w", name, err)
		}
	}
	return nil
}
