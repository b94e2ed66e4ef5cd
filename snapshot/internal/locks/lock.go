// Package locks tells processes that share a store of each other: by files with a lock
// (flock(2)), which the kernel frees when its holder ends, and by directories that hold
// such a file while their maker lives.
package locks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

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

// Held is an open file whose flock(2) is held until Close.
type Held struct{ *os.File }

// Take takes the lock of f as how says, which may include unix.LOCK_NB. If it can't, it closes f.
func Take(f *os.File, how int) (*Held, error) {
	if err := flock(f, how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Held{f}, nil
}

// Open opens the file path, which it makes, and takes its lock.
func Open(path string, how int) (*Held, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return Take(f, how)
}

// Close gives the lock up and closes the file. It unlocks by itself because a child
// that another goroutine has just forked holds the open file until it executes its
// program: the lock would outlive the closing.
func (l *Held) Close() error {
	_ = unix.Flock(int(l.Fd()), unix.LOCK_UN) // fails on a closed file, as closing it does
	return l.File.Close()
}

// Wait takes the exclusive lock of the file path, which it makes, and
// returns the function that gives it back. The same lock excludes other calls in
// this process too, because each call opens the file anew. If the wait isn't short,
// waiting, unless it is nil, is called once with the ID of the process that has the lock.
func Wait(ctx context.Context, path string, waiting func(pid int)) (func(), error) {
	const longest = 50 * time.Millisecond
	pause := time.Millisecond
	for {
		unlock, err := Try(path)
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

// Try is [Wait] without waiting: nil and no error when another has it.
func Try(path string) (func(), error) {
	f, err := Open(path, unix.LOCK_EX|unix.LOCK_NB)
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

// Tidy removes the files in dir that killed processes had locked by [Wait] or [Try].
func Tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		unlock, err := Try(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if unlock != nil {
			unlock()
		}
	}
	return nil
}
