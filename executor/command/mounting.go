package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A mounting is the mounts of one running command.
type mounting struct {
	*Commands

	op      *dockerfile.Run
	process *sandbox.Process
	vertex  *event.Vertex
	dir     string // private, for sockets and sources
	agents  int
	undo    []func() error // in reverse
	caches  map[digest.Digest]*snapshot.CacheMount
}

// close undoes everything that the mounts needed.
func (m *mounting) close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// files mounts the files of a source for this command. Files that the command may write
// are a copy, which is discarded.
func (m *mounting) files(ctx context.Context, from *Source, readOnly bool) (string, error) {
	snap, err := from.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	if readOnly {
		v, err := m.Store.View(ctx, snap)
		if err != nil {
			return "", err
		}
		m.undo = append(m.undo, v.Close)
		return v.Root(), nil
	}
	a, err := m.Store.Prepare(ctx, snap)
	if err != nil {
		return "", err
	}
	m.undo = append(m.undo, a.Discard)
	return a.Root(), nil
}

// bind shows source, resolved inside root, at target. It binds the descriptor, since
// another command may change a cache mount meanwhile.
func (m *mounting) bind(root, source, target string, readOnly bool) error {
	if source != "/" {
		handle, err := filecopy.OpenInRoot(root, source)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount on %s: %w", target, &filecopy.NotFoundError{Source: source})
		}
		if err != nil {
			return fmt.Errorf("mount on %s: source %s: %w", target, source, err)
		}
		m.undo = append(m.undo, handle.Close)
		place := filepath.Join(m.dir, fmt.Sprint(len(m.process.Mounts)))
		if err := makePlace(handle, place); err != nil {
			return err
		}
		root = fmt.Sprintf("/proc/self/fd/%d", handle.Fd())
		err = unix.Mount(root, place, "", unix.MS_BIND, "")
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			// Nothing can be mounted: commands run in a chroot, which takes the
			// descriptor.
		case err != nil:
			return fmt.Errorf("mount on %s: %w", target, &os.PathError{Op: "bind", Path: source, Err: err})
		default:
			m.undo = append(m.undo, func() error { return unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
			root = place
		}
	}
	m.process.Mounts = append(m.process.Mounts, sandbox.Mount{Source: root, Target: target, ReadOnly: readOnly})
	return nil
}

// makePlace makes an empty file or an empty directory, whichever the handle is.
func makePlace(handle *os.File, place string) error {
	info, err := handle.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.Mkdir(place, 0o700)
	}
	return os.WriteFile(place, nil, 0o600)
}

// setenv sets a variable of this process only.
func (m *mounting) setenv(name, value string) {
	env := slices.DeleteFunc(slices.Clone(m.process.Env), func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
	m.process.Env = append(env, name+"="+value)
}

// give gives the file or directory name, which is no link, an owner and a mode.
func give(name string, owner dockerfile.MountOwner, keeper owners.Keeper) error {
	if err := keeper.Fchownat(unix.AT_FDCWD, name, int(owner.UID), int(owner.GID)); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	if err := keeper.Fchmodat(unix.AT_FDCWD, name, owner.Mode); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}
