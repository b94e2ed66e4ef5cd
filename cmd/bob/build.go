package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/cmd/bob/internal/output"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/progress"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/docker/cli/cli/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// buildConfig is bob build as the command line has it.
type buildConfig struct {
	isolationFlags

	file, target, network            cli.Text
	buildArgs, labels                *cli.List
	addHosts, ulimits, buildContexts *cli.List
	platforms                        *cli.List
	output                           output.Flags
	secrets, ssh, allow, noCacheOf   *cli.List
	cacheFrom, cacheTo, emulators    *cli.List
	noCache, pull, quiet, explain    bool
	cacheSync                        cli.Choice
	timeout, stepTimeout             time.Duration
	memory                           cli.Text
	cpus                             float64
	pids                             int64
	limits                           sandbox.Limits // what options made of them
	progress, iidfile, metadata, shm string
	cache, call                      string
	cacheLimit                       cli.Text
	unpacked                         unpackLimit
	checkOnly                        bool
	workspace                        workspaceConfig
	jobs                             int
	registries                       registryConfig
	stdin                            io.Reader
	stdout, stderr                   io.Writer
}

func newBuildCommand(stdin io.Reader, stdout, stderr io.Writer) *ffcli.Command {
	cfg := &buildConfig{stdin: stdin, stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob build", flag.ContinueOnError)
	cfg.register(fs)
	return &ffcli.Command{
		Name:       "build",
		ShortUsage: "bob build [flags] <directory | URL | ->",
		ShortHelp:  "Build an image from a Dockerfile",
		LongHelp: "Build an image from a Dockerfile and the files of a directory, of a git repository\n" +
			"or archive at a URL, or of a tar on standard input (-). With -t the image is pushed to the registry it names.\n" +
			"Standard output is the digest of the image's manifest and nothing else.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *buildConfig) register(fs *flag.FlagSet) {
	cfg.platforms, cfg.buildArgs, cfg.labels = new(cli.List), new(cli.List), new(cli.List)
	cfg.addHosts, cfg.ulimits = new(cli.List), new(cli.List)
	cfg.buildContexts = new(cli.List)
	cfg.secrets, cfg.ssh, cfg.allow = new(cli.List), new(cli.List), new(cli.List)
	cfg.noCacheOf, cfg.emulators = new(cli.List), new(cli.List)
	cfg.cacheFrom, cfg.cacheTo = new(cli.List), new(cli.List)
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	fs.Var(cfg.platforms, "platform", "`os/arch[/variant]` to build for, a list with commas makes an index (default: this machine's); repeatable")
	cfg.output.Register(fs)
	cfg.unpacked.register(fs)
	fs.Var(&cfg.file, "file", "the Dockerfile's `path` or URL, - for standard input (default: Dockerfile in the context)")
	fs.Var(cfg.buildArgs, "build-arg", "`NAME=value` for an ARG; NAME alone takes it from the environment; repeatable")
	fs.Var(cfg.buildContexts, "build-context", "`name=value` of a directory, docker-image://REF, oci-layout://PATH or URL in place of an image or stage; repeatable")
	fs.Var(cfg.cacheFrom, "cache-from", "`spec` of a cache to find results in, type=registry,ref=REF or type=local,src=DIR or REF alone; repeatable")
	fs.Var(cfg.cacheTo, "cache-to", "`spec` of where to keep results for other machines, type=registry,ref=REF[,mode=max] or type=local,dest=DIR or type=inline; repeatable")
	fs.Var(cfg.labels, "label", "`name=value` put on the image; repeatable")
	fs.Var(cfg.addHosts, "add-host", "`name:address` for /etc/hosts in RUN; repeatable")
	fs.Var(cfg.ulimits, "ulimit", "`name=soft[:hard]` limit for RUN; repeatable")
	fs.Var(cfg.secrets, "secret", "`spec` of a secret for RUN, id=NAME,src=PATH or id=NAME,env=NAME; repeatable")
	fs.Var(cfg.ssh, "ssh", "`id[=paths]` of an agent for RUN: default, or a socket or keys; repeatable")
	fs.Var(cfg.allow, "allow", "`entitlement` that RUN may use: security.insecure, network.host; repeatable")
	fs.Var(cfg.emulators, "emulator", "`arch=path` of a static emulator for RUN of another platform, as arm64=/usr/bin/qemu-aarch64-static; root needs --rootless for it; repeatable")
	fs.Var(&cfg.target, "target", "`stage` to build, by name or number (default: the last)")
	fs.Var(&cfg.network, "network", "network `mode` of RUN, default, host, none, or private: user-mode, without the host's addresses; default is host")
	cfg.isolationFlags.register(fs, "enter a user namespace first; always done without root")
	fs.BoolVar(&cfg.noCache, "no-cache", false, "run every step, even if its result is known")
	fs.Var(cfg.noCacheOf, "no-cache-filter", "`stages`, by name or number and with commas between them, of which every step is run; repeatable")
	fs.BoolVar(&cfg.explain, "explain-cache", false, "tell of every step whether its result was known and, if not, what has changed")
	fs.BoolVar(&cfg.pull, "pull", false, "resolve base images at their registry; bob always does")
	fs.BoolVar(&cfg.quiet, "quiet", false, "print only the digest, and errors")
	fs.StringVar(&cfg.progress, "progress", "auto", "`mode` of progress on standard error: auto, plain, tty, quiet or rawjson")
	fs.StringVar(&cfg.iidfile, "iidfile", "", "write the image ID (the config's digest) to `file`")
	fs.StringVar(&cfg.metadata, "metadata-file", "", "write what was built to `file`, as JSON")
	fs.Var(&cfg.registries.bundle, "ca-bundle", "`file` of certificate authorities, in PEM form, that RUN and bob itself trust beside theirs; not in the image")
	fs.StringVar(&cfg.shm, "shm-size", "", "`size` of /dev/shm in RUN, as 128m (default 64m)")
	fs.Var(&cfg.memory, "memory", "`size` of the memory that a RUN may use, as 512m or 2g (default: no limit)")
	fs.Float64Var(&cfg.cpus, "cpus", 0, "`number` of CPUs that a RUN may use, as 1.5 (default: no limit)")
	fs.Int64Var(&cfg.pids, "pids-limit", 0, "`number` of processes and threads that a RUN may have (default: no limit)")
	fs.StringVar(&cfg.cache, "cache-dir", "", "`directory` that keeps layers and results (default: bob in the user's cache)")
	fs.Var(&cfg.cacheSync, "cache-sync", cacheSyncHelp)
	fs.Var(&cfg.cacheLimit, "cache-limit", "`size` that the cache is cut down to after a build, 0 for none (default 20g, or half of a small disk)")
	fs.BoolVar(&cfg.checkOnly, "check", false, "print what BuildKit's checks find in the Dockerfile and build nothing; is --call=check")
	fs.StringVar(&cfg.call, "call", "build", "`method` to evaluate the Dockerfile: build or check")
	fs.DurationVar(&cfg.timeout, "timeout", 0, "`duration` after which the build is ended, as 90s or 1h30m (default: none)")
	fs.DurationVar(&cfg.stepTimeout, "step-timeout", 0, "`duration` after which a step is ended, and the build with it (default: none)")
	cfg.workspace.register(fs)
	fs.IntVar(&cfg.jobs, "jobs", 0, "`number` of steps that may run at once (default: one per CPU)")
}

// exec checks the command line, enters the namespaces that the build needs,
// and builds.
func (cfg *buildConfig) exec(ctx context.Context, args []string) error {
	if len(args) == 0 && cfg.workspace.wanted() {
		return cfg.execWorkspace(ctx)
	}
	in, err := cfg.input(ctx, args)
	if err != nil {
		return err
	}
	o, err := cfg.options(ctx)
	mode, errMode := viewMode(cfg.progress, cfg.quiet)
	check, errCall := cfg.wantsCheck()
	if err := errors.Join(err, errMode, errCall); err != nil {
		return err
	}
	in.MaxUnpacked = o.build.MaxUnpacked
	if check {
		return cfg.check(ctx, in, o, mode)
	}
	result, err := cfg.enterAndBuild(ctx, in, o, mode)
	if err != nil {
		return interrupted(ctx, err)
	}
	return cfg.announce(result, &o.build)
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
		args, err := buildArgs(ctx, cfg.buildArgs.Values)
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

// interrupted returns err, or the signal that ended ctx: what that broke is not
// the reason. A step that failed has done so before.
func interrupted(ctx context.Context, err error) error {
	_, step := errors.AsType[*executor.StepError](err)
	if cause := context.Cause(ctx); err != nil && cause != nil && !step {
		return cause
	}
	return err
}

// enterAndBuild enters the namespaces that the build needs, and builds.
func (cfg *buildConfig) enterAndBuild(ctx context.Context, in *input.Input, o *options, mode progress.Mode) (*executor.Result, error) {
	cache, err := cacheDir(cfg.cache)
	if err != nil {
		return nil, err
	}
	m, err := cfg.enter(cache)
	if err != nil {
		return nil, err
	}
	view, err := newView(mode, cfg.stderr)
	if err != nil {
		return nil, err
	}
	if cfg.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.timeout, &executor.TimeoutError{Flag: "--timeout", Limit: cfg.timeout})
		defer cancel()
	}
	result, err := cfg.build(ctx, in, o, cache, m, view)
	return result, errors.Join(overdue(ctx, err), view.Close())
}

// overdue returns err with the reason, if that is the limit of the build's time.
func overdue(ctx context.Context, err error) error {
	late, ok := errors.AsType[*executor.TimeoutError](context.Cause(ctx))
	if !ok || err == nil || errors.Is(err, late) {
		return err
	}
	return fmt.Errorf("%w: %w", late, err)
}

// build is the build itself, in the namespaces it needs.
func (cfg *buildConfig) build(ctx context.Context, in *input.Input, o *options, cache string, m *machine, view progress.View) (result *executor.Result, err error) {
	m.store.MaxUnpacked = o.build.MaxUnpacked
	store, err := snapshot.Open(cache, m.store)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, store.Close())
		syncLater(cache, cfg.cacheSync)
	}()
	limiter, err := sandbox.NewLimiter(cfg.limits)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, limiter.Close()) }()
	runner := &sandbox.Runner{
		Dir: filepath.Join(store.TempDir(), "sandbox"), Isolation: m.mode.Isolation, OneID: m.mode.OneID, Devices: store.Owners(),
		Limiter: limiter, Copy: filecopy.Clone, Notice: warnIn(view),
	}
	emulators := &sandbox.Emulators{Dir: store.TempDir(), Mode: m.mode, Paths: o.emulators}
	defer func() { err = errors.Join(err, emulators.Close()) }()
	builder := &executor.Builder{
		Store:    store,
		Registry: cfg.registries.client(warnIn(view)),
		Runner:   runner,
		NoRUN:    m.noRUN(),
		Emulate:  emulators.Prepare,
		Fetch:    cfg.fetcher(store.TempDir(), &o.build, warnIn(view)),
		Progress: view.Event,
	}
	src, err := in.Open(ctx, store.TempDir(), builder.Open)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if o.plan.Ignore = src.Ignore; o.fingerprint {
		o.build.Fingerprint = src.Dockerfile.Fingerprint(o.plan)
	}
	if o.plan.SourceEpoch, err = epoch(ctx, in, src.Dockerfile, o, builder); err != nil {
		return nil, err
	}
	plans, err := o.plans(src.Dockerfile)
	if err != nil {
		return nil, err
	}
	o.build.Context, o.build.Ignore = src.Context, src.Ignore
	if builder.NoRUN == nil { // else a plan without RUN lacks nothing
		for _, text := range m.notices {
			warnIn(view)(text)
		}
		limits, err := runner.Limits()
		if err != nil {
			return nil, err
		}
		for _, l := range limits {
			warnIn(view)(l.Error())
		}
	}
	result, err = builder.BuildAll(ctx, plans, o.build)
	if pruneErr := o.trim(ctx, store, cache); pruneErr != nil && ctx.Err() == nil {
		warnIn(view)(pruneErr.Error())
	}
	return result, err
}

// fetcher fetches what Dockerfile and command line name by address, with the
// secrets and the SSH agent that the build was given.
func (cfg *buildConfig) fetcher(temp string, b *executor.Options, notice func(string)) *fetch.Client {
	o := fetch.Options{
		Patience: cfg.registries.options.Patience, Notice: notice,
		UserAgent: "bob/" + version, TempDir: temp, MaxSize: b.MaxUnpacked, CABundle: b.CABundle, KnownHosts: []string{"/etc/ssh/ssh_known_hosts"},
		Secret: func(ctx context.Context, id string) ([]byte, bool) {
			secret, ok := b.Secrets[id]
			if !ok {
				return nil, false
			}
			data, err := secret.Read(ctx)
			return data, err == nil
		},
	}
	if agent := b.SSH["default"]; agent != nil {
		o.Agent = agent.Dial
	}
	if home, err := os.UserHomeDir(); err == nil {
		o.KnownHosts = append(o.KnownHosts, filepath.Join(home, ".ssh", "known_hosts"))
	}
	return fetch.New(o)
}

// viewMode returns the mode called name, or that of --quiet.
func viewMode(name string, quiet bool) (progress.Mode, error) {
	if quiet {
		return progress.Quiet, nil
	}
	mode, err := progress.ParseMode(name)
	if err != nil {
		return mode, cli.About("progress", "", cli.Errorf("--progress: %v", err))
	}
	return mode, nil
}

// newView returns a view of a build on w. Views make what they show safe themselves,
// since the output of RUN keeps its colours; only rawjson hands everything on.
func newView(mode progress.Mode, w io.Writer) (progress.View, error) {
	if mode == progress.RawJSON {
		w = terminal.JSON(w)
	}
	return progress.New(mode, w, progress.Options{NoColor: os.Getenv("NO_COLOR") != "", Term: os.Getenv("TERM")})
}

// warnIn returns a function that shows remarks in view.
func warnIn(view progress.View) func(string) {
	return func(text string) {
		view.Event(executor.Event{Time: time.Now(), Kind: executor.EventWarning, Name: text})
	}
}

// announce writes the result to where it was asked for. Where no image was made
// there is no ID and no digest to write.
func (cfg *buildConfig) announce(r *executor.Result, o *executor.Options) error {
	id := r.Config
	if id == "" {
		id = r.Manifest.Digest // several platforms have no config in common
	}
	if cfg.iidfile != "" && id != "" {
		if err := os.WriteFile(cfg.iidfile, []byte(id.String()), 0o644); err != nil { //nolint:gosec // not secret
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if cfg.metadata != "" {
		if err := cfg.writeMetadata(r, o.Tags); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if r.Manifest.Digest == "" || slices.ContainsFunc(o.Outputs, func(o executor.Output) bool { return o.Writer != nil }) {
		return nil
	}
	_, err := fmt.Fprintln(cfg.stdout, r.Manifest.Digest)
	return err
}

// writeMetadata writes the file of --metadata-file, with buildx's names.
func (cfg *buildConfig) writeMetadata(r *executor.Result, pushed []string) error {
	m := map[string]any{}
	if r.Manifest.Digest != "" {
		m["containerimage.digest"] = r.Manifest.Digest
		m["containerimage.descriptor"] = r.Manifest
	}
	if r.Config != "" {
		m["containerimage.config.digest"] = r.Config
		layers := make([]ocispec.Descriptor, 0, len(r.Layers))
		for _, l := range r.Layers {
			layers = append(layers, l.Descriptor)
		}
		m["bob.layers"] = layers
	}
	if cfg.explain {
		m["bob.cache"] = r.Cache
	}
	if names := cmp.Or(strings.Join(pushed, ","), strings.Join(cfg.output.Tags.Values, ",")); names != "" {
		m["image.name"] = names
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(cfg.metadata, append(data, '\n'), 0o644) //nolint:gosec // not secret
}

// cacheDir returns the directory that keeps what builds share.
func cacheDir(flag string) (string, error) {
	if flag == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no place for the cache: %w; set BOB_CACHE_DIR", err)
		}
		flag = filepath.Join(dir, "bob")
	}
	dir, err := filepath.Abs(flag)
	if err == nil {
		err = snapshot.CheckPlace(dir)
	}
	if err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	return dir, nil
}

// epochArg is the variable of https://reproducible-builds.org/specs/source-date-epoch/.
const epochArg = "SOURCE_DATE_EPOCH"

// epoch returns the time of what SOURCE_DATE_EPOCH names, zero if that has none,
// and nil if it names nothing. Directories have no time.
func epoch(ctx context.Context, in *input.Input, file *dockerfile.File, o *options, b *executor.Builder) (*time.Time, error) {
	named, err := file.EpochSource(o.plan)
	if named == nil || err != nil {
		return nil, err
	}
	src := named.Source
	if named.Context == "context" {
		src = in.Remote
	} else if c, ok := o.build.Contexts[named.Context]; ok && c.Repository != nil {
		src = c.Repository
	} else if ok && c.URL != "" {
		src = &dockerfile.Download{URL: c.URL, Name: dockerfile.ContextFileName}
	}
	if src == nil {
		return &time.Time{}, nil
	}
	t, err := b.Time(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return &t, nil
}

// maxConfig bounds a file of credentials and settings, in bytes.
const maxConfig = 4 << 20

// buildArgs returns the values of --build-arg. A name alone stands for the
// variable of the environment, and for nothing if there is none. That of
// SOURCE_DATE_EPOCH counts without being asked for, as do the proxies in docker's
// configuration.
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
	// As with buildx, for builds whose scripts know of nothing but the variable.
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
