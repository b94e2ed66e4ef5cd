package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"strconv"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/cmd/bob/internal/output"
	"github.com/bobbuild/bob/dockerfile"
)

// buildConfig holds the flags of bob build.
type buildConfig struct {
	file      cli.Text
	plan      planFlags
	run       runFlags
	secrets   secretFlags
	cache     cacheFlags
	output    output.Flags
	result    resultFlags
	view      viewFlags
	isolation isolationFlags
	workspace workspaceConfig
	profile   profileFlags

	registries registryConfig
	call       string
	checkOnly  bool

	stdin          io.Reader
	stdout, stderr io.Writer
}

func (cfg *buildConfig) register(fs *flag.FlagSet) {
	fs.Var(&cfg.file, "file", "the Dockerfile's `path` or URL, - for standard input (default: Dockerfile in the context)")
	fs.BoolVar(&cfg.checkOnly, "check", false, "print what BuildKit's checks find in the Dockerfile and build nothing; is --call=check")
	fs.StringVar(&cfg.call, "call", "build", "`method` to evaluate the Dockerfile: build or check")
	fs.Bool("pull", false, "resolve base images at their registry; bob always does")
	cfg.plan.register(fs)
	cfg.run.register(fs)
	cfg.secrets.register(fs)
	cfg.cache.register(fs)
	cfg.output.Register(fs)
	cfg.result.register(fs)
	cfg.view.register(fs, "print only the digest, and errors")
	cfg.isolation.register(fs, "enter a user namespace first; always done without root")
	cfg.workspace.register(fs)
	cfg.profile.register(fs)
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	fs.Var(&cfg.registries.bundle, "ca-bundle", "`file` of certificate authorities, in PEM form, that RUN and bob itself trust beside theirs; not in the image")
}

// input returns what the arguments name.
func (cfg *buildConfig) input(ctx context.Context, args []string) (*input.Input, error) {
	if len(args) != 1 {
		return nil, cli.Errorf("bob build takes one argument, the build context (a directory, a URL, or - for a tar on standard input); got %d", len(args))
	}
	in, err := input.New(args[0], string(cfg.file), cfg.stdin)
	if err != nil {
		return nil, err
	}
	if src, ok := in.Remote.(*dockerfile.Repository); ok {
		args, err := buildArgs(ctx, cfg.plan.buildArgs.Values)
		if err != nil {
			return nil, err
		}
		if keep, err := strconv.ParseBool(args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && keep {
			src.KeepGitDir = true
		}
		src.CommitTime = src.CommitTime || args[epochArg] != ""
	}
	return in, nil
}

// options applies every flag except those that name the input. Its error joins
// everything that is wrong with the flags.
func (cfg *buildConfig) options(ctx context.Context) (_ *options, err error) {
	defer func() { err = interrupted(ctx, err) }()
	o := &options{}
	cache, err := cacheDir(cfg.cache.dir)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		cfg.plan.apply(ctx, o), cfg.run.apply(o), cfg.secrets.apply(ctx, o), cfg.cache.apply(o, cache), cfg.result.check(),
		cfg.registries.apply(ctx, o), cfg.isolation.check(), cfg.output.Apply(&o.build, cfg.stdout),
	); err != nil {
		return nil, err
	}
	if err := o.build.Check(o.platforms); err != nil {
		return nil, cli.Errorf("%v", err)
	}
	return o, nil
}
