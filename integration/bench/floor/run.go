package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// devices are what the commands get of /dev. The base holds a file in the place of each.
var devices = []string{"null", "urandom"}

// runOn has a command run on an overlay over lower, in the namespaces that a RUN gets.
// What it writes is in dir/upper.
func runOn(ctx context.Context, lower, dir, command string) (err error) {
	upper, work, root := filepath.Join(dir, "upper"), filepath.Join(dir, "work"), filepath.Join(dir, "root")
	for _, d := range []string{upper, work, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
	if err := syscall.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer func() { err = errors.Join(err, syscall.Unmount(root, 0)) }()
	for _, device := range devices {
		inside := filepath.Join(root, "dev", device)
		if err := syscall.Mount("/dev/"+device, inside, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", device, err)
		}
		defer func() { err = errors.Join(syscall.Unmount(inside, 0), err) }()
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/bin:/sbin:/usr/bin:/usr/sbin"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     root,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	return cmd.Run()
}
