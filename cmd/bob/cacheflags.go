package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/sharedcache"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/snapshot"
	"github.com/docker/go-units"
)

// cacheDirHelp is the help of --cache-dir.
const cacheDirHelp = "`directory` that keeps layers and results (default: bob in the user's cache)"

// storeFlags say where layers and results are kept.
type storeFlags struct {
	dir      string
	sync     cli.Choice
	unpacked unpackLimit
}

func (f *storeFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.dir, "cache-dir", "", cacheDirHelp)
	fs.Var(&f.sync, "cache-sync", "have a process bring the cache to the disk afterwards, so that a power failure costs nothing of it (default true)")
	f.unpacked.register(fs)
}

// syncLater has a process write the cache to the disk, once no build has used it for a
// while: one that waits already, or one that it starts. bob does not wait for it, since it
// has to wait until the machine has written everything else. Without this process a power
// failure costs more of the cache.
func (f *storeFlags) syncLater(cache string) {
	if !f.sync.Or(true) || os.Getpid() == 1 { // the process would be killed with this one
		return
	}
	if snapshot.SyncAwaited(cache) {
		return
	}
	cmd := exec.Command("/proc/self/exe", "cache", "sync", "--idle", "--cache-dir", cache) //nolint:gosec,noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if cmd.Start() == nil {
		_ = cmd.Process.Release()
	}
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

// cacheFlags say what a build finds in the cache, and what it leaves there.
type cacheFlags struct {
	storeFlags

	none, explain bool
	noneOf        cli.List
	from, to      cli.List
	limit         cli.Text
}

func (f *cacheFlags) register(fs *flag.FlagSet) {
	f.storeFlags.register(fs)
	fs.BoolVar(&f.none, "no-cache", false, "run every step, even if its result is known")
	fs.Var(&f.noneOf, "no-cache-filter", "`stages`, by name or number and with commas between them, of which every step is run; repeatable")
	fs.BoolVar(&f.explain, "explain-cache", false, "tell of every step whether its result was known and, if not, what has changed")
	from, to := sharedcache.Usage()
	fs.Var(&f.from, "cache-from", "`spec` of a cache to find results in, "+from+" or REF alone; repeatable")
	fs.Var(&f.to, "cache-to", "`spec` of where to keep results for other machines, "+to+"; repeatable")
	fs.Var(&f.limit, "cache-limit", "`size` that the cache is cut down to after a build, 0 for none (default 20g, or half of a small disk)")
}

// apply sets how the build uses the cache in the directory.
func (f *cacheFlags) apply(o *options, dir string) error {
	o.build.NoCache, o.build.ExplainCache, o.build.LeaveOut = f.none, f.explain, dir
	for _, stages := range f.noneOf.Values {
		for stage := range strings.SplitSeq(stages, ",") {
			o.plan.NoCache = append(o.plan.NoCache, strings.TrimSpace(stage))
		}
	}
	return errors.Join(f.applySizes(o, dir), f.applyShared(&o.build))
}

// applySizes sets how much space the build may take on the disk that holds cache.
func (f *cacheFlags) applySizes(o *options, cache string) error {
	var wrong, err error
	o.limit = -1
	if f.limit != "" {
		if o.limit, err = units.RAMInBytes(string(f.limit)); err != nil {
			wrong = cli.Wrong("cache-limit", f.limit, "want a size as 500m or 10g, or 0")
		}
	}
	o.build.MaxUnpacked, err = f.unpacked.bytes(cache)
	return errors.Join(wrong, err)
}

// applyShared sets the caches that the build imports and exports.
func (f *cacheFlags) applyShared(o *executor.Options) error {
	var wrong []error
	for _, spec := range f.from.Values {
		src, err := sharedcache.ParseFrom(spec)
		if err != nil {
			wrong = append(wrong, cli.Wrong("cache-from", spec, "%v", err))
			continue
		}
		o.CacheFrom = append(o.CacheFrom, *src)
	}
	for _, spec := range f.to.Values {
		t, err := sharedcache.ParseTo(spec)
		if err != nil {
			wrong = append(wrong, cli.Wrong("cache-to", spec, "%v", err))
			continue
		}
		o.CacheTo = append(o.CacheTo, *t)
	}
	return errors.Join(wrong...)
}
