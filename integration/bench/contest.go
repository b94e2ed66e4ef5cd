package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/integration/harness"
)

// A record is one build, or several at once, of one builder.
type record struct {
	Workload    string
	Variant     variant
	Builder     string
	Run         int
	Began       time.Time
	Calibration calibration
	Cost        *cost  // nil if it failed
	Failed      string `json:",omitempty"`
}

// A contest has builders build a workload, again and again.
type contest struct {
	lab      *harness.Lab
	traffic  *harness.Traffic
	workload *workload
	variants []variant // in the order of the constants
	dir      string    // holds Dockerfile and context
	changes  int       // how many the context has had
	records  []record
}

// prepare makes the contest's directory and the images that the Dockerfile begins with.
func (c *contest) prepare(ctx context.Context) (err error) {
	for _, base := range c.workload.bases {
		if err := pushBase(ctx, c.lab, c.traffic, base); err != nil {
			return fmt.Errorf("push the base %s: %w", base, err)
		}
	}
	c.dir, err = writeBuild(c.lab, c.workload.name, c.workload.dockerfile, c.workload.fill)
	return err
}

// enters says whether the peer takes part in the variant.
func (c *contest) enters(p peer, v variant) bool {
	switch {
	case p.name == floorName:
		return v == unchanged || v == cold && c.workload.floor != nil
	case v == imported:
		return p.imports
	}
	return true
}

// visit has a peer build each variant once, all on one fresh disk. That a builder fails is
// recorded and ends the visit; the error is one of the bench itself.
func (c *contest) visit(ctx context.Context, p peer, run int) (err error) {
	variants := slices.DeleteFunc(slices.Clone(c.variants), func(v variant) bool { return !c.enters(p, v) })
	if len(variants) == 0 {
		return nil
	}
	disk, err := newDisk(ctx, c.lab)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.remove(context.WithoutCancel(ctx))) }()
	unix.Sync()
	jobs := c.jobs(p, run)
	if variants[0] == imported {
		if err := c.export(ctx, p, filepath.Join(disk.dir, "first"), jobs[0]); err != nil {
			return c.fail(ctx, record{Variant: imported, Builder: p.name, Run: run}, err)
		}
		jobs[0].importFrom = cacheOf(jobs[0])
	}
	site, err := openSite(ctx, c.lab, c.traffic, p, filepath.Join(disk.dir, "site"))
	if err != nil {
		return c.fail(ctx, record{Variant: variants[0], Builder: p.name, Run: run}, err)
	}
	defer func() { err = errors.Join(err, site.close()) }()
	known := false // whether the site has results that later builds find
	for _, v := range variants {
		r := record{Workload: c.workload.name, Variant: v, Builder: p.name, Run: run}
		keep := v != cold || !p.forgets
		if (v == unchanged || v == changed) && !known {
			if _, err := site.build(ctx, kept(jobs, true)); err != nil {
				return c.fail(ctx, r, err)
			}
		}
		if v == changed {
			c.changes++
			if err := changeFile(filepath.Join(c.dir, "context", c.workload.change), c.changes); err != nil {
				return err
			}
		}
		if r.Calibration, err = calibrate(ctx); err != nil {
			return err
		}
		r.Began = time.Now()
		if r.Cost, err = site.build(ctx, kept(jobs, keep)); err != nil {
			return c.fail(ctx, r, err)
		}
		r.Cost.Kept = disk.used()
		fmt.Fprintf(os.Stderr, "%s %s, run %d: %s %.2f s\n", c.workload.name, v, run+1, p.name, r.Cost.Wall.Seconds())
		c.records = append(c.records, r)
		known = known || keep
	}
	return nil
}

// fail records that a builder failed, unless the bench was told to end.
func (c *contest) fail(ctx context.Context, r record, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.Workload, r.Cost, r.Failed = c.workload.name, nil, err.Error()
	fmt.Fprintf(os.Stderr, "%s %s, run %d: %s failed: %v\n", c.workload.name, r.Variant, r.Run+1, r.Builder, err)
	c.records = append(c.records, r)
	return nil
}

// export has a site of its own build the job and leave a cache in the registry.
func (c *contest) export(ctx context.Context, p peer, dir string, j job) (err error) {
	site, err := openSite(ctx, c.lab, c.traffic, p, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.close()) }()
	j.exportTo = cacheOf(j)
	_, err = site.build(ctx, []job{j})
	return err
}

func cacheOf(j job) string { return j.ref + "-cache" }

// jobs returns what is built at once in each variant.
func (c *contest) jobs(p peer, run int) []job {
	var jobs []job
	for n := range max(1, c.workload.atOnce) {
		name := strings.ToLower(fmt.Sprintf("%s-%s-%d-%d", c.workload.name, strings.ReplaceAll(p.name, " ", "-"), run, n))
		j := job{
			dir: c.dir, ref: c.traffic.Prefix + "/" + strings.ReplaceAll(name, "'", ""), targets: c.workload.targets,
			base: c.traffic.Prefix + "/" + c.workload.bases[0], args: arguments(c.traffic), floor: c.workload.floor,
		}
		if c.workload.atOnce > 1 {
			j.args["N"] = fmt.Sprint(n)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// kept returns the jobs with that keep.
func kept(jobs []job, keep bool) []job {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].keep = keep
	}
	return jobs
}
