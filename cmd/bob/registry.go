package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/listen"
	"github.com/bobbuild/bob/registry/serve"
	"github.com/peterbourgon/ff/v3/ffcli"
)

func newRegistryCommand(stdout, stderr io.Writer) *ffcli.Command {
	return &ffcli.Command{
		Name:        "registry",
		ShortUsage:  "bob registry <command>",
		ShortHelp:   "A small registry for trying things out",
		Subcommands: []*ffcli.Command{newServeCommand(stdout, stderr)},
		Exec:        cli.ShowHelp,
	}
}

type serveConfig struct {
	listen, dir    string
	stdout, stderr io.Writer
}

func newServeCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &serveConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob registry serve", flag.ContinueOnError)
	fs.StringVar(&cfg.listen, "listen", "127.0.0.1:5000", "`address` to listen on, loopback only; port 0 takes a free one (default 127.0.0.1:5000)")
	fs.StringVar(&cfg.dir, "dir", "", "`directory` that keeps the images (default: registry in the cache directory)")
	return &ffcli.Command{
		Name:       "serve",
		ShortUsage: "bob registry serve [flags]",
		ShortHelp:  "Serve images kept in a directory",
		LongHelp: "Serve images kept in a directory to programs on this machine, until interrupted.\n" +
			"There is no authentication, so it listens on loopback addresses only.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *serveConfig) exec(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return cli.Errorf("bob registry serve takes no arguments")
	}
	l, err := listen.On(ctx, cfg.listen, listen.Limits{Why: "the registry has no authentication and serves this machine only"})
	if err != nil {
		return err
	}
	handler, err := cfg.handler()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(grace)
	})
	defer stop()
	if _, err := fmt.Fprintf(cfg.stdout, "listening on %s\n", listen.Address(l)); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}

func (cfg *serveConfig) handler() (http.Handler, error) {
	if cfg.dir == "" {
		cache, err := cacheDir("")
		if err != nil {
			return nil, err
		}
		cfg.dir = filepath.Join(cache, "registry")
	}
	if err := os.MkdirAll(cfg.dir, 0o700); err != nil {
		return nil, err
	}
	return serve.Handler(cfg.dir)
}
