package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// flock takes the lock of f as how says, which may include unix.LOCK_NB.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			err = &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		if errors.Is(err, unix.ENOLCK) || errors.Is(err, errors.ErrUnsupported) {
			return fmt.Errorf("%w: this file system locks no files, as some network file systems: put the store on a local disk", err)
		}
		return err
	}
}

// A heldLock is an open file whose flock(2) is held until Close.
type heldLock struct{ *os.File }

// takeLock takes the lock of f, as flock does. If it can't, it closes f.
func takeLock(f *os.File, how int) (*heldLock, error) {
	if err := flock(f, how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &heldLock{f}, nil
}

// openLock opens the file path, which it makes, and takes its lock.
func openLock(path string, how int) (*heldLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return takeLock(f, how)
}

// Close gives the lock up and closes the file. It unlocks by itself because a child
// that another goroutine has just forked holds the open file until it executes its
// program: the lock would outlive the closing.
func (l *heldLock) Close() error {
	_ = unix.Flock(int(l.Fd()), unix.LOCK_UN) // fails on a closed file, as closing it does
	return l.File.Close()
}

// waitLock takes the exclusive lock of the file path, which it makes, and
// returns the function that gives it back. The same lock excludes other calls in
// this process too, because each call opens the file anew. If the wait isn't short,
// waiting, unless it is nil, is called once with the ID of the process that has the lock.
func waitLock(ctx context.Context, path string, waiting func(pid int)) (func(), error) {
	const longest = 50 * time.Millisecond
	pause := time.Millisecond
	for {
		unlock, err := tryLock(path)
		if unlock != nil || err != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-time.After(pause):
		}
		if pause = min(2*pause, longest); pause < longest || waiting == nil {
			continue
		}
		if pid, ok := lockHolder(path); ok {
			waiting(pid)
			waiting = nil
		}
	}
}

// lockHolder returns the ID of the process that has the lock of the file path. ok is
// false while it has only just got it.
func lockHolder(path string) (pid int, ok bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(string(data))
	return pid, err == nil
}

// Lock waits until nobody else, in this or another process with the same ID
// mapping, holds the lock of the given name, and returns the function that gives
// it back. It goes when its process ends. Ending ctx ends the wait. If that isn't
// short, waiting is called once with the ID of the process that has the lock.
func (s *Store) Lock(ctx context.Context, name digest.Digest, waiting func(pid int)) (release func(), err error) {
	if err := name.Validate(); err != nil {
		return nil, fmt.Errorf("lock %q: %w", name, err)
	}
	return waitLock(ctx, filepath.Join(s.own("locks"), name.Encoded()), waiting)
}

// tryLock is waitLock without waiting: nil and no error when another has it.
func tryLock(path string) (func(), error) {
	f, err := openLock(path, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// The holder before unlinked the file: then the lock of f locks nothing.
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
		f.Close()
		return nil, err
	}
	// For those who wait; without it they aren't told whom they wait for.
	if f.Truncate(0) == nil {
		_, _ = f.WriteString(strconv.Itoa(os.Getpid()))
	}
	return func() {
		os.Remove(path)
		f.Close()
	}, nil
}
