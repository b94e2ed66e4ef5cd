package executor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/inputs"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Builder builds plans. Its fields are set once, before the first Build; a
// Builder may run several builds at the same time.
type Builder struct {
	Store    *snapshot.Store
	Registry *registry.Client
	Runner   command.Runner
	NoRUN    error // why RUN can't be run, if not nil; a plan with a RUN is then refused
	// Emulate prepares the machine to run commands of these architectures, by Go's
	// names, and of the architectures of earlier calls; see Prepare of package binfmt.
	// nil means that the machine runs them already.
	Emulate  func(ctx context.Context, architectures []string) error
	Fetch    *fetch.Client     // nil: one without credentials
	Clock    func() time.Time  // nil: time.Now
	Progress func(event.Event) // nil discards events; called from several goroutines
}

// Options configure one build, beside its plan.
type Options struct {
	// Context is the directory that COPY and ADD read; empty if there is none.
	Context string
	// Ignore holds the patterns of .dockerignore, in their order.
	Ignore []string
	// LeaveOut is a directory that is left out of every context, since builds change it
	// while they read.
	LeaveOut string
	// Contexts are the named contexts except images of registries, by the keys of
	// [dockerfile.Options.Contexts].
	Contexts map[string]Context
	// NoCache runs every step even if its result is known.
	NoCache bool
	// ExplainCache makes the build report for every step whether its result was known
	// and, if not, what has changed, by [event.Cache] and in [Result.Cache].
	ExplainCache bool
	// StepTimeout is how long one step, or one of its downloads, may take after
	// everything that it waits for is there; 0 means no limit. To limit the whole
	// build, end its context with a [TimeoutError] as the cause.
	StepTimeout time.Duration
	// MaxUnpacked is the greatest unpacked size of an archive that ADD unpacks, of a
	// cache mount from a cache, and of a layer that is compressed anew, in bytes; 0
	// means no limit. [snapshot.Options.MaxUnpacked] limits layers that the store
	// unpacks.
	MaxUnpacked int64
	// Jobs bounds the operations under way at once; 0 means [DefaultJobs]. Those that copy
	// files are also bounded by the number of CPUs.
	Jobs int
	// Tags are the references that the image is pushed to. They may lie in
	// different registries.
	Tags []string
	// Fingerprint, if not "", is the digest of everything but files of the
	// context that decides about the result; see [dockerfile.File.Fingerprint].
	// The manifest then gets [inputs.AnnotationDigest] and [inputs.AnnotationReads].
	Fingerprint digest.Digest
	// ByDigest pushes the image to the repositories of Tags without a tag: its digest
	// is its name.
	ByDigest bool
	// CacheFrom are the caches that are searched for results, after the store, in this
	// order.
	CacheFrom []cache.Source
	// CacheTo is where the results are kept for other machines.
	CacheTo []cache.Target
	// Outputs are further places that the result is written to.
	Outputs []image.Output
	// Format is the format of the image that is pushed, or only reported.
	Format image.Format
	// Report makes an image of the result even if only files are asked for.
	Report bool

	// Network is the network of a RUN without --network.
	Network sandbox.Network
	// ExtraHosts are lines for /etc/hosts in RUN, as "name:address".
	ExtraHosts []string
	// Secrets are what --mount=type=secret may show, by ID.
	Secrets map[string]command.Secret
	// SSH are the agents that --mount=type=ssh may show, by ID.
	SSH map[string]*command.SSHAgent
	// AllowInsecure lets RUN --security=insecure run. Without it the build
	// fails before anything runs.
	AllowInsecure bool
	// AllowHostNetwork lets RUN --network=host have the host's network where
	// Network is Private. Without it the build fails before anything runs.
	AllowHostNetwork bool
	// ShmSize is the size of /dev/shm in RUN in bytes; 0 means 64 MiB.
	ShmSize int64
	// CABundle, if not empty, holds certificate authorities in PEM form that RUN
	// trusts too, by variables that the Dockerfile doesn't set. They become no part
	// of the image or of a key.
	CABundle []byte
	// Ulimits are resource limits of RUN.
	Ulimits []sandbox.Ulimit
}

// UpToDate reports whether the image whose manifest has these annotations is
// what a build with o would make: whether o.Fingerprint and the files of
// o.Context that the image's own build read are the same. Base images and other
// things at an address count as the fingerprint names them; whether they have
// changed is not asked. See [inputs.Context.UpToDate].
func (o *Options) UpToDate(ctx context.Context, annotations map[string]string) (bool, error) {
	c := inputs.Context{Dir: o.Context, Ignore: o.Ignore, LeaveOut: o.LeaveOut}
	return c.UpToDate(ctx, o.Fingerprint, annotations)
}

// cachesRead returns the caches that are searched for results.
func (o *Options) cachesRead() []cache.Source {
	if o.NoCache {
		return nil
	}
	return o.CacheFrom
}

// destinations returns where the result goes.
func (o *Options) destinations() image.Destinations {
	return image.Destinations{Tags: o.Tags, ByDigest: o.ByDigest, Format: o.Format, Outputs: o.Outputs, Report: o.Report}
}

// Check refuses options that don't fit any build for these platforms. Build checks them
// too, after the Dockerfile is read.
func (o *Options) Check(targets []ocispec.Platform) error {
	d := o.destinations()
	return d.Check(targets)
}

// complete sets the defaults of o, and refuses options that don't fit the plans.
func (o *Options) complete(plans []*dockerfile.Plan) error {
	if o.Jobs < 0 {
		return fmt.Errorf("jobs: %d is negative", o.Jobs)
	}
	if o.Jobs == 0 {
		o.Jobs = DefaultJobs()
	}
	d := o.destinations()
	if err := d.CheckFiles(); err != nil {
		return err
	}
	for _, p := range plans[1:] {
		if one, other := p.Epoch, plans[0].Epoch; (one == nil) != (other == nil) || one != nil && !one.Equal(*other) {
			return errors.New("SOURCE_DATE_EPOCH is not the same for all platforms: give it by --build-arg")
		}
	}
	return nil
}

// A Result describes what a build made.
type Result struct {
	image.Result

	// Cache has the cases of the steps, with [Options.ExplainCache], in the order of
	// the progress. A step that several stages share appears once.
	Cache []explain.Case
}

// A StepError is the failure of one instruction.
type StepError struct {
	Step     string // as shown in the progress
	Location dockerfile.Location
	Err      error
}

// Error names the instruction's place and the cause.
func (e *StepError) Error() string {
	return fmt.Sprintf("%s: %s: %v", e.Location, e.Step, e.Err)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// complete returns b with the defaults for what isn't set.
func (b *Builder) complete() *Builder {
	c := *b
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Fetch == nil && c.Store != nil {
		c.Fetch = fetch.New(fetch.Options{TempDir: c.Store.TempDir()})
	}
	return &c
}

// DefaultJobs returns the default of [Options.Jobs]. That is commandsPerCPU for each CPU,
// since commands wait for networks, disks and each other more than they compute. Where
// this process has a limit of memory (see [debug.SetMemoryLimit]), it is as many as have
// room, but at least one for each CPU.
func DefaultJobs() int {
	cpus := runtime.NumCPU()
	return max(cpus, int(min(int64(cpus)*commandsPerCPU, debug.SetMemoryLimit(-1)/commandMemory)))
}

const (
	commandsPerCPU = 8
	// commandMemory is how much of its own limit this process has for each command, in
	// bytes. Commands have what the limit leaves of the machine, or of bob's container.
	commandMemory = 128 << 20
)

// copiesAtOnce is how many layers are unpacked, and operations copy files, at once.
func (o *Options) copiesAtOnce() int { return min(o.Jobs, runtime.NumCPU()) }
