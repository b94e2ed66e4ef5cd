package main

import (
	"context"
	"os"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// options are the options of the plan and of the build that the flags stand for.
type options struct {
	plan      dockerfile.Options // for the first platform
	platforms []ocispec.Platform
	build     executor.Options
	emulators map[string]string // paths by architecture
	limits    cgroup.Limits     // of a RUN
	// fingerprint writes into the image what it was built from.
	fingerprint bool
	// limit is what the cache is cut down to after the build, in bytes; 0 means
	// not at all, less than 0 the default.
	limit int64
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

// trim removes the least recently used items from the store in dir if it has become too
// large. Looking at all items takes a while, so with the default limit it is done once in
// trimInterval, and whenever the disk is nearly full.
func (o *options) trim(ctx context.Context, store *snapshot.Store, dir string) error {
	limit := o.limit
	if limit < 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		if store.SincePrune() < trimInterval && st.Bavail > st.Blocks/nearlyFull {
			return nil
		}
		limit = min(defaultCacheLimit, int64(st.Blocks)*st.Bsize/2)
	}
	if limit == 0 {
		return nil
	}
	_, err := store.Prune(ctx, snapshot.PruneOptions{Keep: limit})
	return err
}

// defaultCacheLimit is the limit of the cache without --cache-limit, in bytes.
const defaultCacheLimit = 20 << 30

const (
	trimInterval = 10 * time.Minute
	nearlyFull   = 10 // one part in so many is free
)
