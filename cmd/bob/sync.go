package main

import (
	"context"
	"flag"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/snapshot"
	"github.com/peterbourgon/ff/v3/ffcli"
)

func newCacheSyncCommand() *ffcli.Command {
	var (
		dir  string
		idle bool
	)
	fs := flag.NewFlagSet("bob cache sync", flag.ContinueOnError)
	fs.StringVar(&dir, "cache-dir", "", cacheDirHelp)
	fs.BoolVar(&idle, "idle", false, "wait for a moment without builds first, some seconds to a minute; leave it to another bob that waits already")
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
			if idle {
				return interrupted(ctx, snapshot.SyncIdle(ctx, cache))
			}
			return interrupted(ctx, snapshot.Sync(ctx, cache))
		},
	}
}
