package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// options is what the flags ask of the plan and of the build.
type options struct {
	plan      dockerfile.Options // for the first platform
	platforms []ocispec.Platform
	build     executor.Options
	emulators map[string]string // paths by architecture
	// fingerprint has the image say what it was built from.
	fingerprint bool
	// limit is what the cache is cut down to after the build, in bytes; 0 means
	// not at all, less than 0 the default.
	limit int64
}

// options checks every flag but those that name what is read. Its error joins all that
// is wrong with them.
func (cfg *buildConfig) options(ctx context.Context) (_ *options, err error) {
	defer func() { err = interrupted(ctx, err) }()
	o := &options{}
	o.plan.Target = string(cfg.target)
	for _, stages := range cfg.noCacheOf.Values {
		for stage := range strings.SplitSeq(stages, ",") {
			o.plan.NoCache = append(o.plan.NoCache, strings.TrimSpace(stage))
		}
	}
	o.build.NoCache, o.build.ExplainCache, o.build.Jobs = cfg.noCache, cfg.explain, cfg.jobs
	o.build.StepTimeout = cfg.stepTimeout
	cache, err := cacheDir(cfg.cache)
	if err != nil {
		return nil, err
	}
	o.build.LeaveOut = cache
	if err := errors.Join(
		cfg.planOptions(ctx, &o.plan), cfg.platformOptions(o), cfg.sizes(o, cache), cfg.times(),
		cfg.secretOptions(&o.build), cfg.sshOptions(ctx, &o.build), cfg.allowOptions(&o.build),
		cfg.networkOption(&o.build), cfg.hostOptions(&o.build), cfg.limitOptions(&o.build), cfg.bundleOption(ctx, &o.build),
		cfg.emulatorOptions(o), cfg.resultFiles(), cfg.contexts(ctx, o), cfg.registries.check(ctx), cfg.isolationFlags.check(),
		cfg.output.Apply(&o.build, cfg.stdout), cfg.sharedCache(&o.build),
	); err != nil {
		return nil, err
	}
	if err := o.build.Check(o.platforms); err != nil {
		return nil, cli.Errorf("%v", err)
	}
	return o, nil
}

// planOptions sets what Dockerfiles are read with.
func (cfg *buildConfig) planOptions(ctx context.Context, o *dockerfile.Options) error {
	var wrong []error
	o.Labels = make(map[string]string)
	for _, l := range cfg.labels.Values {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			wrong = append(wrong, cli.About("label", l, cli.Errorf("--label %q: the name is missing", l)))
		}
		o.Labels[name] = value
	}
	var err error
	o.BuildArgs, err = buildArgs(ctx, cfg.buildArgs.Values)
	return errors.Join(append(wrong, err)...)
}

func (cfg *buildConfig) platformOptions(o *options) (err error) {
	if o.platforms, o.plan.PlatformGiven, err = platformList(cfg.platforms.Values); err != nil {
		return err
	}
	o.plan.TargetPlatform = o.platforms[0]
	o.plan.BuildPlatform = thisPlatform()
	return nil
}

// sizes sets how much the build may take of the disk, on which cache is.
func (cfg *buildConfig) sizes(o *options, cache string) error {
	var wrong, err error
	o.limit = -1
	if cfg.cacheLimit != "" {
		if o.limit, err = units.RAMInBytes(string(cfg.cacheLimit)); err != nil {
			wrong = cli.Wrong("cache-limit", cfg.cacheLimit, "want a size as 500m or 10g, or 0")
		}
	}
	o.build.MaxUnpacked, err = cfg.unpacked.bytes(cache)
	return errors.Join(wrong, err)
}

// times checks the flags that are numbers of steps and of time.
func (cfg *buildConfig) times() error {
	var wrong []error
	if cfg.jobs < 0 {
		wrong = append(wrong, cli.Wrong("jobs", cfg.jobs, "a negative number"))
	}
	for _, t := range []struct {
		flag  string
		value time.Duration
	}{{"timeout", cfg.timeout}, {"step-timeout", cfg.stepTimeout}} {
		if t.value < 0 {
			wrong = append(wrong, cli.About(t.flag, "", cli.Errorf("--%s %s: want a duration as 90s or 1h30m", t.flag, t.value)))
		}
	}
	return errors.Join(wrong...)
}

// resultFiles checks that the files can be written which tell of the image: when they
// are it has been pushed already.
func (cfg *buildConfig) resultFiles() error {
	var wrong []error
	for _, f := range [][2]string{{"iidfile", cfg.iidfile}, {"metadata-file", cfg.metadata}} {
		if f[1] == "" {
			continue
		}
		if err := unix.Access(filepath.Dir(f[1]), unix.W_OK); err != nil {
			wrong = append(wrong, cli.About(f[0], "", cli.Errorf("--%s %s: can't be written to its directory: %v", f[0], f[1], err)))
		}
	}
	return errors.Join(wrong...)
}

func (cfg *buildConfig) networkOption(o *executor.Options) error {
	switch cfg.network {
	case "", "default", "host":
		o.Network = sandbox.Host
	case "none":
		o.Network = sandbox.None
	case "private":
		o.Network = sandbox.Private
	default:
		return cli.Wrong("network", cfg.network, "want default, host, none or private")
	}
	return nil
}

func (cfg *buildConfig) hostOptions(o *executor.Options) error {
	for _, h := range cfg.addHosts.Values {
		host, err := extraHost(h)
		if err != nil {
			return cli.About("add-host", h, err)
		}
		o.ExtraHosts = append(o.ExtraHosts, host)
	}
	return nil
}

// limitOptions sets what a RUN may use.
func (cfg *buildConfig) limitOptions(o *executor.Options) error {
	var wrong []error
	if cfg.shm != "" {
		n, err := units.RAMInBytes(cfg.shm)
		if err != nil || n <= 0 {
			wrong = append(wrong, cli.Wrong("shm-size", cfg.shm, "want a size as 64m or 1g"))
		}
		o.ShmSize = n
	}
	for _, u := range cfg.ulimits.Values {
		l, err := units.ParseUlimit(u)
		if err != nil {
			wrong = append(wrong, cli.Wrong("ulimit", u, "%v", err))
			continue
		}
		o.Ulimits = append(o.Ulimits, sandbox.Ulimit{Name: l.Name, Soft: uint64(l.Soft), Hard: uint64(l.Hard)})
	}
	var err error
	cfg.limits, err = cfg.runLimits()
	return errors.Join(append(wrong, err)...)
}

// bundleOption reads the authorities that RUN trusts.
func (cfg *buildConfig) bundleOption(ctx context.Context, o *executor.Options) (err error) {
	if file := cfg.registries.bundle; file != "" {
		if o.CABundle, err = bounded.ReadFile(ctx, string(file), executor.MaxBundleSize); err != nil {
			return cli.About("ca-bundle", "", cli.Errorf("--ca-bundle: %v", err))
		}
	}
	return nil
}

func (cfg *buildConfig) emulatorOptions(o *options) error {
	o.emulators = make(map[string]string)
	for _, v := range cfg.emulators.Values {
		arch, path, err := emulator(v)
		if err != nil {
			return cli.Wrong("emulator", v, "%v", err)
		}
		o.emulators[arch] = path
	}
	return nil
}

// emulator parses a value of --emulator. The architecture is written as in a platform,
// with or without an operating system and a variant.
func emulator(value string) (arch, path string, err error) {
	arch, path, ok := strings.Cut(value, "=")
	if !ok || arch == "" || path == "" {
		return "", "", errors.New("want an architecture and a path, as arm64=/usr/bin/qemu-aarch64-static")
	}
	p, err := platforms.Parse(arch)
	if err != nil {
		return "", "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || unix.Access(path, unix.X_OK) != nil) {
		err = fmt.Errorf("this user can't execute %s", path)
	}
	return p.Architecture, path, err
}

// leastMemory is what starting a container takes.
const leastMemory = 6 << 20

// runLimits returns the limits of RUN. As in docker, 0 and -1 are none.
func (cfg *buildConfig) runLimits() (sandbox.Limits, error) {
	l := sandbox.Limits{CPUs: cfg.cpus, PIDs: max(0, cfg.pids)}
	var wrong []error
	if cfg.memory != "" {
		var err error
		if l.Memory, err = units.RAMInBytes(string(cfg.memory)); err != nil || l.Memory > 0 && l.Memory < leastMemory {
			wrong = append(wrong, cli.Wrong("memory", cfg.memory, "want a size as 512m or 2g, of 6m at least"))
		}
	}
	if !(l.CPUs == 0 || l.CPUs >= 0.01 && l.CPUs <= 1<<20) {
		wrong = append(wrong, cli.Wrong("cpus", cfg.cpus, "want a number as 1.5, of 0.01 at least"))
	}
	if cfg.pids < -1 {
		wrong = append(wrong, cli.Wrong("pids-limit", cfg.pids, "want a positive number"))
	}
	return l, errors.Join(wrong...)
}

// extraHost parses the argument of --add-host: name:address or name=address,
// an IPv6 address with or without brackets.
func extraHost(s string) (string, error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	ip := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if !ok || name == "" || net.ParseIP(ip) == nil {
		return "", cli.Errorf("--add-host %s: want name:address with a numeric address", s)
	}
	return name + ":" + ip, nil
}

// plans returns the plan of f for each platform.
func (o *options) plans(f *dockerfile.File) ([]*dockerfile.Plan, error) {
	var all []*dockerfile.Plan
	for _, p := range o.platforms {
		plan := o.plan
		plan.TargetPlatform = p
		made, err := f.Plan(plan)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return all, nil
}
