package main

import (
	"context"
	"encoding/csv"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

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

// options checks every flag but those that name what is read.
func (cfg *buildConfig) options(ctx context.Context) (_ *options, err error) {
	defer func() { err = interrupted(ctx, err) }()
	o := &options{}
	o.plan.Target = string(cfg.target)
	for _, stages := range cfg.noCacheOf.values {
		for stage := range strings.SplitSeq(stages, ",") {
			o.plan.NoCache = append(o.plan.NoCache, strings.TrimSpace(stage))
		}
	}
	if o.platforms, o.plan.PlatformGiven, err = cfg.targets(); err != nil {
		return nil, err
	}
	o.plan.TargetPlatform = o.platforms[0]
	o.plan.BuildPlatform = platforms.Normalize(platforms.DefaultSpec())
	if o.plan.BuildArgs, err = buildArgs(ctx, cfg.buildArgs.values); err != nil {
		return nil, err
	}
	o.plan.Labels = make(map[string]string)
	for _, l := range cfg.labels.values {
		name, value, _ := strings.Cut(l, "=")
		if name == "" {
			return nil, usageErrorf("--label %q: the name is missing", l)
		}
		o.plan.Labels[name] = value
	}
	if cfg.jobs < 0 {
		return nil, usageErrorf("--jobs %d: a negative number", cfg.jobs)
	}
	o.limit = -1
	if cfg.cacheLimit != "" {
		if o.limit, err = units.RAMInBytes(string(cfg.cacheLimit)); err != nil {
			return nil, usageErrorf("--cache-limit %s: want a size as 500m or 10g, or 0", cfg.cacheLimit)
		}
	}
	if cfg.timeout < 0 || cfg.stepTimeout < 0 {
		return nil, usageErrorf("--timeout and --step-timeout: want a duration as 90s or 1h30m")
	}
	o.build.NoCache, o.build.ExplainCache, o.build.Jobs = cfg.noCache, cfg.explain, cfg.jobs
	o.build.StepTimeout = cfg.stepTimeout
	cache, err := cacheDir(cfg.cache)
	if err != nil {
		return nil, err
	}
	o.build.LeaveOut = cache
	if o.build.MaxUnpacked, err = cfg.unpacked.bytes(cache); err != nil {
		return nil, err
	}
	if err := cfg.confidential(ctx, &o.build); err != nil {
		return nil, err
	}
	if err := cfg.runOptions(ctx, &o.build); err != nil {
		return nil, err
	}
	if o.emulators, err = emulators(cfg.emulators.values); err != nil {
		return nil, err
	}
	// These are written when the image has been pushed already.
	for name, file := range map[string]string{"iidfile": cfg.iidfile, "metadata-file": cfg.metadata} {
		if file == "" {
			continue
		}
		if err := unix.Access(filepath.Dir(file), unix.W_OK); err != nil {
			return nil, usageErrorf("--%s %s: can't be written to its directory: %v", name, file, err)
		}
	}
	if err := cfg.contexts(ctx, o); err != nil {
		return nil, err
	}
	if err := cfg.registries.check(ctx); err != nil {
		return nil, err
	}
	if err := cfg.isolationFlags.check(); err != nil {
		return nil, err
	}
	if err := cfg.exports(&o.build); err != nil {
		return nil, err
	}
	if err := cfg.sharedCache(&o.build); err != nil {
		return nil, err
	}
	if err := o.build.Check(o.platforms); err != nil {
		return nil, usageErrorf("%v", err)
	}
	return o, nil
}

// runOptions sets what concerns RUN.
func (cfg *buildConfig) runOptions(ctx context.Context, o *executor.Options) error {
	switch cfg.network {
	case "", "default", "host":
		o.Network = sandbox.Host
	case "none":
		o.Network = sandbox.None
	case "private":
		o.Network = sandbox.Private
	default:
		return usageErrorf("--network %s: want default, host, none or private", cfg.network)
	}
	for _, h := range cfg.addHosts.values {
		host, err := extraHost(h)
		if err != nil {
			return err
		}
		o.ExtraHosts = append(o.ExtraHosts, host)
	}
	if cfg.shm != "" {
		n, err := units.RAMInBytes(cfg.shm)
		if err != nil || n <= 0 {
			return usageErrorf("--shm-size %s: want a size as 64m or 1g", cfg.shm)
		}
		o.ShmSize = n
	}
	var err error
	if cfg.limits, err = cfg.runLimits(); err != nil {
		return err
	}
	if file := cfg.registries.bundle; file != "" {
		if o.CABundle, err = bounded.ReadFile(ctx, string(file), executor.MaxBundleSize); err != nil {
			return usageErrorf("--ca-bundle: %v", err)
		}
	}
	for _, u := range cfg.ulimits.values {
		l, err := units.ParseUlimit(u)
		if err != nil {
			return usageErrorf("--ulimit %s: %v", u, err)
		}
		o.Ulimits = append(o.Ulimits, sandbox.Ulimit{Name: l.Name, Soft: uint64(l.Soft), Hard: uint64(l.Hard)})
	}
	return nil
}

// emulators parses the values of --emulator. The architecture is written as in a
// platform, with or without an operating system and a variant.
func emulators(values []string) (map[string]string, error) {
	paths := make(map[string]string)
	for _, v := range values {
		arch, path, ok := strings.Cut(v, "=")
		if !ok || arch == "" || path == "" {
			return nil, usageErrorf("--emulator %s: want an architecture and a path, as arm64=/usr/bin/qemu-aarch64-static", v)
		}
		p, err := platforms.Parse(arch)
		if err != nil {
			return nil, usageErrorf("--emulator %s: %v", v, err)
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if info, err := os.Stat(path); err != nil {
			return nil, usageErrorf("--emulator %s: %v", v, err)
		} else if !info.Mode().IsRegular() || unix.Access(path, unix.X_OK) != nil {
			return nil, usageErrorf("--emulator %s: this user can't execute %s", v, path)
		}
		paths[p.Architecture] = path
	}
	return paths, nil
}

// leastMemory is what starting a container takes.
const leastMemory = 6 << 20

// runLimits returns the limits of RUN. As in docker, 0 and -1 are none.
func (cfg *buildConfig) runLimits() (sandbox.Limits, error) {
	l := sandbox.Limits{CPUs: cfg.cpus, PIDs: max(0, cfg.pids)}
	if cfg.memory != "" {
		var err error
		if l.Memory, err = units.RAMInBytes(string(cfg.memory)); err != nil || l.Memory > 0 && l.Memory < leastMemory {
			return l, usageErrorf("--memory %s: want a size as 512m or 2g, of 6m at least", cfg.memory)
		}
	}
	if !(l.CPUs == 0 || l.CPUs >= 0.01 && l.CPUs <= 1<<20) {
		return l, usageErrorf("--cpus %v: want a number as 1.5, of 0.01 at least", cfg.cpus)
	}
	if cfg.pids < -1 {
		return l, usageErrorf("--pids-limit %d: want a positive number", cfg.pids)
	}
	return l, nil
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
		return "", usageErrorf("--add-host %s: want name:address with a numeric address", s)
	}
	return name + ":" + ip, nil
}

// exports sets where the image goes: without --output to the tags.
func (cfg *buildConfig) exports(o *executor.Options) error {
	for _, t := range cfg.tags.values {
		if _, err := reference.ParseNormalizedNamed(t); err != nil {
			return usageErrorf("-t %s: %v", t, err)
		}
	}
	push := cfg.push.or(len(cfg.outputs.values) == 0)
	names := cfg.tags.values
	var err error
	if o.Format, err = cfg.format(); err != nil {
		return err
	}
	common, pushed := o.Format, (*output)(nil)
	for _, spec := range cfg.outputs.values {
		out, err := parseOutput(spec)
		if err != nil {
			return err
		}
		for _, name := range out.names {
			if _, err := reference.ParseNormalizedNamed(name); err != nil {
				return usageErrorf("-o %s: name: %v", spec, err)
			}
		}
		names = append(slices.Clip(names), out.names...)
		if out.registry {
			if pushed != nil && !pushed.sameImage(out) {
				return usageErrorf("-o %s: one image is pushed to all names: give all of type=registry the same fields, or build again", spec)
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
				return usageErrorf("-o %s: a tar would be written to the terminal; name a file with dest= or redirect it", spec)
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
			return usageErrorf("push-by-digest gives no names: leave the tag out of %s", name)
		}
	}
	if push {
		o.Tags = names
	}
	if len(names) == 0 && (cfg.push.or(false) || push && len(cfg.outputs.values) > 0) {
		return usageErrorf("nothing says where to push to: name it with -t")
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
		return nil, usageErrorf("-o %s: "+format, append([]any{spec}, args...)...)
	}
	if spec == "-" {
		return &output{Output: executor.Output{Type: executor.OutputTar, Dest: "-"}}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(spec)).Read()
	if err != nil {
		return fail("%v", err)
	}
	if len(fields) == 1 && !strings.Contains(spec, "=") {
		return &output{Output: executor.Output{Type: executor.OutputLocal, Dest: spec}}, nil
	}
	out, kind, asTar := &output{}, "", true
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		switch strings.TrimSpace(key) {
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
			if out.push, err = truth(value); err != nil {
				return fail("push: %v", err)
			}
		default:
			if err := out.attribute(strings.TrimSpace(key), value); err != nil {
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
