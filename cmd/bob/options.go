package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
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
		cfg.exports(&o.build), cfg.sharedCache(&o.build),
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
	if o.platforms, o.plan.PlatformGiven, err = cfg.targets(); err != nil {
		return err
	}
	o.plan.TargetPlatform = o.platforms[0]
	o.plan.BuildPlatform = platforms.Normalize(platforms.DefaultSpec())
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

// parsedOutputs returns what the values of --output stand for, with all names checked
// that the image gets.
func (cfg *buildConfig) parsedOutputs() ([]*output, error) {
	var outs []*output
	var wrong []error
	for _, t := range cfg.tags.Values {
		if _, err := reference.ParseNormalizedNamed(t); err != nil {
			wrong = append(wrong, cli.About("tag", t, cli.Errorf("-t %s: %v", t, err)))
		}
	}
	for _, spec := range cfg.outputs.Values {
		out, err := parseOutput(spec)
		if err != nil {
			wrong = append(wrong, cli.About("output", spec, err))
			continue
		}
		for _, name := range out.names {
			if _, err := reference.ParseNormalizedNamed(name); err != nil {
				wrong = append(wrong, cli.About("output", spec, cli.Errorf("-o %s: name: %v", spec, err)))
			}
		}
		outs = append(outs, out)
	}
	return outs, errors.Join(wrong...)
}

// exports sets where the image goes: without --output to the tags.
func (cfg *buildConfig) exports(o *executor.Options) error {
	outs, err := cfg.parsedOutputs()
	var errFormat error
	if o.Format, errFormat = cfg.format(); err != nil || errFormat != nil {
		return errors.Join(err, errFormat)
	}
	push := cfg.push.Or(len(cfg.outputs.Values) == 0)
	names := cfg.tags.Values
	common, pushed := o.Format, (*output)(nil)
	for i, out := range outs {
		spec := cfg.outputs.Values[i]
		names = append(slices.Clip(names), out.names...)
		if out.registry {
			if pushed != nil && !pushed.sameImage(out) {
				return cli.About("output", spec, cli.Errorf("-o %s: one image is pushed to all names: give all of type=registry the same fields, or build again", spec))
			}
			pushed = out
			push = push || out.push
			o.Format, o.ByDigest, o.Report = common, out.byDigest, true
			_ = out.change(&o.Format) // checked when parsed
			continue
		}
		out.Format = common
		_ = out.change(&out.Format) // likewise
		if out.Dest == "-" {
			if f, ok := cfg.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				return cli.About("output", spec, cli.Errorf("-o %s: a tar would be written to the terminal; name a file with dest= or redirect it", spec))
			}
			out.Writer = cfg.stdout
		}
		o.Outputs = append(o.Outputs, out.Output)
	}
	for i := range o.Outputs {
		o.Outputs[i].Names = names
	}
	for _, name := range names {
		if named, err := reference.ParseNormalizedNamed(name); err == nil && o.ByDigest && !reference.IsNameOnly(named) {
			return cli.Errorf("push-by-digest gives no names: leave the tag out of %s", name)
		}
	}
	if push {
		o.Tags = names
	}
	if len(names) == 0 && (cfg.push.Or(false) || push && len(cfg.outputs.Values) > 0) {
		return cli.Errorf("nothing says where to push to: name it with -t")
	}
	return nil
}

// An output is one --output as written.
type output struct {
	executor.Output
	registry bool // stands for pushing to the tags
	push     bool // and does so
	byDigest bool // but names nothing there
	names    []string

	attributes [][2]string // what it changes in the format of the flags
}

// sameImage reports whether out and other ask for the same bytes in a registry.
func (out *output) sameImage(other *output) bool {
	return out.byDigest == other.byDigest && reflect.DeepEqual(out.attributes, other.attributes)
}

// parseOutput parses the argument of --output: comma-separated fields, or a
// directory, or - for a tar on standard output.
func parseOutput(spec string) (*output, error) {
	fail := func(format string, args ...any) (*output, error) {
		return nil, cli.Errorf("-o %s: "+format, append([]any{spec}, args...)...)
	}
	if spec == "-" {
		return &output{Output: executor.Output{Type: executor.OutputTar, Dest: "-"}}, nil
	}
	fields, err := cli.Fields(spec)
	if err != nil {
		return fail("%v", err)
	}
	if len(fields) == 1 && !fields[0].HasValue {
		return &output{Output: executor.Output{Type: executor.OutputLocal, Dest: spec}}, nil
	}
	out, kind, asTar := &output{}, "", true
	for _, f := range fields {
		switch key, value := f.Key, f.Value; key {
		case "type":
			kind = value
		case "dest":
			out.Dest = value
		case "name":
			out.names = strings.Split(value, ",")
		case "tar":
			if value != "true" && value != "false" {
				return fail("tar is true or false")
			}
			asTar = value == "true"
		case "push":
			if out.push, err = cli.Bool(value); err != nil {
				return fail("push: %v", err)
			}
		default:
			if err := out.attribute(key, value); err != nil {
				return fail("%v", err)
			}
		}
	}
	out.Type, out.Dir = executor.OutputType(kind), !asTar
	switch out.Type {
	case executor.OutputOCI, executor.OutputDocker, executor.OutputTar, executor.OutputLocal:
		return out, out.check(fail)
	}
	switch {
	case kind != "registry" && kind != "image":
		return fail("unknown type %q; want registry, image, oci, docker, local or tar", kind)
	case out.Dest != "" || out.Dir:
		return fail("dest and tar go with types that are written to a file")
	}
	out.registry, out.push = true, out.push || kind == "registry"
	return out, nil
}

func (out *output) check(fail func(string, ...any) (*output, error)) error {
	var err error
	switch {
	case out.push, out.byDigest:
		_, err = fail("push goes with type=image")
	case len(out.attributes) > 0 && out.Type != executor.OutputOCI && out.Type != executor.OutputDocker:
		_, err = fail("%s is about an image, and this writes files", out.attributes[0][0])
	case out.Dir && out.Type != executor.OutputOCI:
		_, err = fail("tar=false goes with type=oci")
	case out.Dest == "" && (out.Type == executor.OutputLocal || out.Dir):
		_, err = fail("dest, a directory, is missing")
	case out.Dest == "-" && (out.Type == executor.OutputLocal || out.Dir):
		_, err = fail("a directory can't be written to standard output")
	case out.Dest == "":
		out.Dest = "-" // as docker build does
	case out.Dest != "-":
		out.Dest, err = filepath.Abs(out.Dest)
	}
	return err
}
