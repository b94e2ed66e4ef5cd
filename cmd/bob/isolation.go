package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/limits"
	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/snapshot"
)

// isolationFlags are the flags that say how builds work on this machine.
type isolationFlags struct {
	rootless               cli.Choice
	isolation, snapshotter cli.Text
}

// register adds the flags; rootless is the help of the first.
func (f *isolationFlags) register(fs *flag.FlagSet, rootless string) {
	fs.Var(&f.rootless, "rootless", rootless)
	fs.Var(&f.isolation, "isolation", "`mode` of RUN: "+strings.Join(isolationKinds(), ", ")+" (no RUN), or auto, the first that the machine allows (default)")
	fs.Var(&f.snapshotter, "snapshotter", "`way` to make file systems of layers: overlay, fuse-overlayfs, copy, or auto, the first that the machine allows (default)")
}

// autoSnapshotter is --snapshotter=auto.
const autoSnapshotter snapshot.Snapshotter = "auto"

func (f *isolationFlags) check() error {
	var wrong error
	if f.isolation != "" {
		wrong = cli.OneOf("isolation", string(f.isolation), append([]string{string(isolation.Auto)}, isolationKinds()...)...)
	}
	switch snapshot.Snapshotter(f.snapshotter) {
	case "", autoSnapshotter, snapshot.Overlay, snapshot.FuseOverlay, snapshot.Copy:
		return wrong
	case snapshot.Index: // only for --isolation none
	}
	return errors.Join(wrong, cli.Wrong("snapshotter", f.snapshotter, "want auto, overlay, fuse-overlayfs or copy"))
}

// isolationKinds are the values of --isolation except auto. "none" is the last.
func isolationKinds() []string {
	var names []string
	for _, k := range isolation.Kinds() {
		names = append(names, string(k))
	}
	return names
}

// A machine is the mode and the store of builds on this machine.
type machine struct {
	mode  *isolation.Mode
	store snapshot.Options
	// notices say what is slower or weaker here than elsewhere.
	notices []string
}

// enter makes the cache directory, enters the best mode that flags and machine allow,
// and finds the best snapshotter.
func (f *isolationFlags) enter(cache string) (*machine, error) {
	if err := limits.CheckProcesses(); err != nil {
		return nil, err
	}
	mode, err := isolation.Enter(f.entering())
	if err != nil {
		return nil, err
	}
	m := &machine{mode: mode, store: snapshot.Options{RecordOwners: mode.RecordsOwners(), HarmlessDevices: mode.HarmlessDevices()}}
	for _, o := range mode.Obstacles {
		m.notices = append(m.notices, fmt.Sprintf("RUN gets %s: %s (`bob doctor` tells what to do)", mode, o.Why))
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return nil, fmt.Errorf("cache directory: %w: choose another directory by --cache-dir, or BOB_CACHE_DIR", err)
	}
	return m, m.choose(snapshot.Snapshotter(f.snapshotter), cache)
}

func (f *isolationFlags) entering() isolation.Options {
	return isolation.Options{Rootless: f.rootless.Or(os.Geteuid() != 0), Isolation: isolation.Kind(f.isolation)}
}

// choose sets the snapshotter: the wanted one or, for "" and auto, the first that
// works in the cache directory.
func (m *machine) choose(wanted snapshot.Snapshotter, cache string) error {
	if !m.mode.CanRun() {
		m.store.Snapshotter = snapshot.Index // nothing is mounted, and nothing run
		return nil
	}
	auto := wanted == "" || wanted == autoSnapshotter
	all := []snapshot.Snapshotter{wanted}
	if auto {
		all = []snapshot.Snapshotter{snapshot.Overlay, snapshot.FuseOverlay, snapshot.Copy}
	}
	var errs []error
	for _, s := range all {
		o := m.obstacle(s, cache)
		if o == nil {
			m.store.Snapshotter = s
			for _, err := range errs {
				m.notices = append(m.notices, fmt.Sprintf("snapshots are made by %s, which is slower: %v (`bob doctor` tells what to do)", s, err))
			}
			return nil
		}
		if !auto {
			return fmt.Errorf("--snapshotter %s: %w", s, o)
		}
		errs = append(errs, errors.New(o.Why))
		if !m.mode.CanMount() && s != snapshot.Copy {
			errs = nil // the notice about the chroot covers it
		}
	}
	return fmt.Errorf("no snapshotter works: %w", errors.Join(errs...))
}

// obstacle says what keeps the snapshotter from working; nil if it works.
func (m *machine) obstacle(s snapshot.Snapshotter, cache string) *obstacle.Obstacle {
	switch {
	case s != snapshot.Copy && !m.mode.CanMount():
		return &obstacle.Obstacle{Why: "it takes mounts, which a chroot has none of", Fix: "use --snapshotter copy"}
	case s == snapshot.Overlay:
		return doctor.TryOverlay(cache)
	case s == snapshot.FuseOverlay:
		return doctor.TryFuseOverlay(cache)
	}
	return nil
}

// noRUN says why commands can't be run; nil if they can.
func (m *machine) noRUN() error {
	if m.mode.CanRun() {
		return nil
	}
	if len(m.mode.Obstacles) == 0 {
		return errors.New("RUN can't be run with --isolation none")
	}
	var why strings.Builder
	why.WriteString("RUN can't be run here:")
	for _, o := range m.mode.Obstacles {
		why.WriteString("\n- " + strings.ReplaceAll(o.Error(), "\n", "\n  "))
	}
	return errors.New(why.String() + "\n`bob doctor` shows all that builds need")
}
