package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// A Group is the cgroup of one run, one in each hierarchy that it takes.
type Group struct {
	limits Limits
	dirs   []string
	locks  []*os.File
}

// Group makes the cgroup of the run called id, nil without limits. The caller
// removes it.
func (l *Limiter) Group(id string) (*Group, error) {
	if l == nil {
		return nil, nil
	}
	g := &Group{limits: l.limits}
	for _, h := range l.homes {
		if err := g.add(&h, id); err != nil {
			return nil, errors.Join(fmt.Errorf("limit RUN: %w", err), g.Remove())
		}
	}
	return g, nil
}

func (g *Group) add(h *home, id string) error {
	dir := filepath.Join(h.dir, prefix+strconv.Itoa(os.Getpid())+"-"+strings.TrimPrefix(id, "bob-"))
	var lock *os.File
	for lock == nil {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as the kernel's
			return err
		}
		var err error
		lock, err = lockGroup(dir)
		// Another bob may take it for left behind until it is locked.
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if lock != nil {
			if _, err := os.Stat(dir); err != nil {
				_, lock = lock.Close(), nil
			}
		}
	}
	g.dirs, g.locks = append(g.dirs, dir), append(g.locks, lock)
	for _, controller := range h.controllers {
		for _, s := range g.limits.settings(controller, h.v2) {
			err := os.WriteFile(filepath.Join(dir, s.file), []byte(s.value), 0)
			if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist)) {
				return fmt.Errorf("set %s to %s: %w", s.file, s.value, err)
			}
		}
	}
	return nil
}

// Join puts the process into the group.
func (g *Group) Join(pid int) error {
	for _, dir := range g.dirs {
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// Reached says which limit a command that failed has reached, "" for none; signalled says
// that a signal killed it, and not a process of its.
func (g *Group) Reached(signalled bool) string {
	switch {
	case g == nil:
	case g.count("oom_kill", "memory.oom_control", "memory.events") > 0:
		limit := "out of its memory limit of " + units.BytesSize(float64(g.limits.Memory))
		if !signalled { // its shell was told
			limit = "killed: " + limit
		}
		return limit
	case g.limits.PIDs > 0 && g.count("max", "pids.events") > 0:
		return fmt.Sprintf("it reached its limit of %d processes", g.limits.PIDs)
	}
	return ""
}

// count returns what the files count together under name; no cgroup has more than one.
func (g *Group) count(name string, files ...string) (n int) {
	for _, dir := range g.dirs {
		for _, file := range files {
			n += Count(dir, file, name)
		}
	}
	return n
}

// Remove removes the group, in which nothing runs any more.
func (g *Group) Remove() error {
	if g == nil {
		return nil
	}
	var errs []error
	for i, dir := range g.dirs {
		errs = append(errs, cgroups.RemovePath(dir), g.locks[i].Close())
	}
	return errors.Join(errs...)
}
