// Command floor does what no builder gets around, and nothing else: it pulls a base,
// makes a layer of a directory, has commands run in namespaces on overlays, makes a layer
// of what each wrote, and pushes all. It has no cache, checks nothing, and keeps no owners.
// How long it takes is what a builder could reach on the same machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

func main() {
	b := &build{}
	flag.StringVar(&b.home, "home", "", "the `directory` to work in")
	flag.StringVar(&b.base, "base", "", "the `reference` of the base")
	flag.StringVar(&b.to, "to", "", "the `reference` to push to")
	flag.StringVar(&b.copy, "copy", "", "the `directory` that becomes a layer, unless it is empty")
	known := flag.Bool("known", false, "do what is left when nothing has changed")
	flag.Parse()
	b.commands = flag.Args()
	ctx := context.Background()
	var err error
	switch {
	case *known:
		err = b.nothingChanged(ctx)
	case os.Getenv(inside) == "":
		err = enter(ctx)
	default:
		err = b.all(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

// inside is set in the process that enter starts.
const inside = "FLOOR_INSIDE"

// enter executes this program again in a user and a mount namespace.
func enter(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	return cmd.Run()
}

// A build is what the flags ask for.
type build struct {
	home, base, to, copy string
	commands             []string
}

// all builds. Each layer leaves while what comes after it is made.
func (b *build) all(ctx context.Context) error {
	from, to := newRepository(b.base), newRepository(b.to)
	image, err := from.image(ctx)
	if err != nil {
		return fmt.Errorf("read the base: %w", err)
	}
	added := make([]layer, 1+len(b.commands))
	errs := make(chan error, len(added)+len(image.Layers))
	var leaving sync.WaitGroup
	leave := func(at int, dir string) {
		leaving.Go(func() {
			var err error
			added[at], err = to.pushLayer(ctx, dir)
			errs <- err
		})
	}
	for _, l := range image.Layers {
		leaving.Go(func() { errs <- to.mount(ctx, l.Digest, from) })
	}
	if entries, err := os.ReadDir(b.copy); err == nil && len(entries) > 0 {
		leave(0, b.copy)
	}
	var lower string
	if len(b.commands) > 0 {
		if lower, err = from.pull(ctx, image, filepath.Join(b.home, "base")); err != nil {
			return fmt.Errorf("pull: %w", err)
		}
	}
	for n, command := range b.commands {
		step := filepath.Join(b.home, fmt.Sprint(n))
		if err := runOn(ctx, lower, step, command); err != nil {
			return fmt.Errorf("run %q: %w", command, err)
		}
		leave(1+n, filepath.Join(step, "upper"))
		if n < maxLowers {
			lower = filepath.Join(step, "upper") + ":" + lower
		}
	}
	leaving.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return to.pushImage(ctx, image, added)
}

// maxLowers is how many layers an overlay gets: mount(2) takes options of a page. What
// lies above isn't needed by these commands.
const maxLowers = 40

// nothingChanged looks at each file of the context, asks for the base's manifest and
// pushes one of the image, as if all blobs were there.
func (b *build) nothingChanged(ctx context.Context) error {
	err := filepath.WalkDir(b.copy, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			_, err = os.Lstat(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	from, to := newRepository(b.base), newRepository(b.to)
	if _, err := from.manifest(ctx); err != nil {
		return err
	}
	return to.pushImage(ctx, &image{}, nil)
}
