package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
)

// planFlags say what is built: which stage of the Dockerfile, for which platforms, with
// which arguments and named contexts.
type planFlags struct {
	target                                 cli.Text
	platforms, buildArgs, labels, contexts cli.List
}

func (f *planFlags) register(fs *flag.FlagSet) {
	fs.Var(&f.target, "target", "`stage` to build, by name or number (default: the last)")
	fs.Var(&f.platforms, "platform", "`os/arch[/variant]` to build for, a list with commas makes an index (default: this machine's); repeatable")
	fs.Var(&f.buildArgs, "build-arg", "`NAME=value` for an ARG; NAME alone takes it from the environment; repeatable")
	fs.Var(&f.labels, "label", "`name=value` put on the image; repeatable")
	fs.Var(&f.contexts, "build-context", "`name=value` of a directory, docker-image://REF, oci-layout://PATH or URL in place of an image or stage; repeatable")
}

// apply sets the platforms, labels, arguments and named contexts.
func (f *planFlags) apply(ctx context.Context, o *options) error {
	o.plan.Target = string(f.target)
	return errors.Join(f.applyArgs(ctx, &o.plan), f.applyPlatforms(o), f.applyContexts(ctx, o))
}

// applyArgs sets the labels and the build arguments.
func (f *planFlags) applyArgs(ctx context.Context, o *dockerfile.Options) error {
	var wrong []error
	o.Labels = make(map[string]string)
	for _, l := range f.labels.Values {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			wrong = append(wrong, cli.About("label", l, cli.Errorf("--label %q: the name is missing", l)))
		}
		o.Labels[name] = value
	}
	var err error
	o.BuildArgs, err = buildArgs(ctx, f.buildArgs.Values)
	return errors.Join(append(wrong, err)...)
}

func (f *planFlags) applyPlatforms(o *options) (err error) {
	if o.platforms, o.plan.PlatformGiven, err = platformList(f.platforms.Values); err != nil {
		return err
	}
	o.plan.TargetPlatform = o.platforms[0]
	o.plan.BuildPlatform = thisPlatform()
	return nil
}

// epochArg is the variable of https://reproducible-builds.org/specs/source-date-epoch/.
const epochArg = "SOURCE_DATE_EPOCH"

// buildArgs returns the values of --build-arg. A name alone takes the value of the
// environment's variable, if there is one. The variable SOURCE_DATE_EPOCH and the
// proxies in docker's configuration count without being named.
func buildArgs(ctx context.Context, values []string) (map[string]string, error) {
	args := make(map[string]string)
	for _, v := range values {
		name, value, ok := strings.Cut(v, "=")
		if name == "" {
			return nil, cli.About("build-arg", v, cli.Errorf("--build-arg %q: the name is missing", v))
		}
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		args[name] = value
	}
	// As in buildx, for scripts that only set the variable.
	if value := os.Getenv(epochArg); value != "" {
		if _, given := args[epochArg]; !given {
			args[epochArg] = value
		}
	}
	return args, proxyArgs(ctx, args)
}

// proxyArgs adds to args the proxies that docker's configuration has for containers. As
// docker build does it adds each in upper and lower case, unless it is given.
func proxyArgs(ctx context.Context, args map[string]string) error {
	dir := dockerDir()
	if dir == "" {
		return nil
	}
	file := filepath.Join(dir, config.ConfigFileName)
	text, err := bounded.ReadFile(ctx, file, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cli.Errorf("%v", err)
	}
	docker, err := config.LoadFromReader(bytes.NewReader(text))
	if err != nil {
		return cli.Errorf("%s: %v", file, err)
	}
	for name, value := range docker.ParseProxyConfig("", nil) {
		if _, given := args[name]; !given {
			args[name] = *value
		}
	}
	return nil
}

// applyContexts sets the named contexts of --build-context, as buildx has them.
func (f *planFlags) applyContexts(ctx context.Context, o *options) error {
	o.plan.Contexts = make(map[string]dockerfile.Context)
	o.build.Contexts = make(map[string]executor.Context)
	for _, spec := range f.contexts.Values {
		name, value, ok := strings.Cut(spec, "=")
		if !ok || name == "" || value == "" {
			return cli.Wrong("build-context", spec, "want name=value")
		}
		name = strings.ToLower(name)
		word, _, _ := strings.Cut(name, "::")
		if _, err := reference.ParseNormalizedNamed(word); err != nil {
			return cli.Wrong("build-context", spec, "name: %v", err)
		}
		c, image, err := input.Named(ctx, value)
		if err != nil {
			return cli.Wrong("build-context", spec, "%v", err)
		}
		o.plan.Contexts[name] = dockerfile.Context{Image: image}
		delete(o.build.Contexts, name)
		if c != nil {
			o.build.Contexts[name] = *c
		}
	}
	return nil
}
