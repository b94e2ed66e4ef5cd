package main

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"syscall"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/snapshot"
	"github.com/peterbourgon/ff/v3/ffcli"
)

func newCacheSyncCommand() *ffcli.Command {
	var dir string
	fs := flag.NewFlagSet("bob cache sync", flag.ContinueOnError)
	fs.StringVar(&dir, "cache-dir", "", "`directory` that keeps layers and results (default: bob in the user's cache)")
	return &ffcli.Command{
		Name:       "sync",
		ShortUsage: "bob cache sync [flags]",
		ShortHelp:  "Wait until the cache is on the disk",
		LongHelp: "Wait until all that the cache holds is on the disk, so that it survives a power failure.\n" +
			"Builds have that done behind them; it is for machines that end with the build.",
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return cli.Errorf("bob cache sync takes no arguments")
			}
			cache, err := cacheDir(dir)
			if err != nil {
				return err
			}
			return interrupted(ctx, snapshot.Sync(ctx, cache))
		},
	}
}

// cacheSyncHelp is the help of --cache-sync.
const cacheSyncHelp = "have a process bring the cache to the disk afterwards, so that a power failure costs nothing of it (default true)"

// syncLater has a process of its own bring the cache to the disk. Nobody waits for it,
// since that may take as long as writing everything that the machine has yet to write.
// If there is no such process, a power failure costs more of the cache. wanted is
// --cache-sync.
func syncLater(cache string, wanted cli.Choice) {
	if !wanted.Or(true) || os.Getpid() == 1 { // it would end, and have to be waited for, with this one
		return
	}
	cmd := exec.Command("/proc/self/exe", "cache", "sync", "--cache-dir", cache) //nolint:gosec,noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
}
