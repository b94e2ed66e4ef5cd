package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

// A contest is one thing to build, again and again.
type contest struct {
	*harness.Lab
	registry *harness.Registry
	dir      string // holds Dockerfile, context and the states
	workload workload
}

// A measure is what one build took.
type measure struct {
	took time.Duration
	peak harness.Peak
}

func compete(ctx context.Context, lab *harness.Lab, load workload, runs int) (ours, theirs []measure, err error) {
	registry, err := lab.Registry()
	if err != nil {
		return nil, nil, err
	}
	if _, err := lab.Image(ctx, load.base); err != nil {
		return nil, nil, err
	}
	dir, err := lab.TempDir("bench")
	if err != nil {
		return nil, nil, err
	}
	c := &contest{Lab: lab, registry: registry, dir: dir, workload: load}
	if err := c.prepare(); err != nil {
		return nil, nil, err
	}
	if load.known {
		if _, err := c.bob(ctx, 0); err != nil {
			return nil, nil, err
		}
		if _, err := c.buildah(ctx, 0); err != nil {
			return nil, nil, err
		}
	}
	for n := range runs {
		if load.change != nil {
			if err := load.change(filepath.Join(dir, "context"), n); err != nil {
				return nil, nil, err
			}
		}
		builders := []func(context.Context, int) (measure, error){c.bob, c.buildah}
		if n%2 == 1 {
			slices.Reverse(builders)
		}
		for i, build := range builders {
			m, err := build(ctx, n)
			if err != nil {
				return nil, nil, err
			}
			if (i == 0) == (n%2 == 0) {
				ours = append(ours, m)
			} else {
				theirs = append(theirs, m)
			}
		}
		fmt.Fprintf(os.Stderr, "%s, run %d: bob %.2f s, buildah %.2f s\n",
			load.name, n+1, ours[n].took.Seconds(), theirs[n].took.Seconds())
	}
	return ours, theirs, nil
}

func (c *contest) prepare() error {
	context := filepath.Join(c.dir, "context")
	if err := os.MkdirAll(context, 0o755); err != nil {
		return err
	}
	if c.workload.fill != nil {
		if err := c.workload.fill(context); err != nil {
			return err
		}
	}
	text := "ARG REGISTRY\nFROM $REGISTRY/" + c.workload.base + "\n" + c.workload.steps
	if err := os.WriteFile(filepath.Join(c.dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		return err
	}
	return c.User.Own(c.dir)
}

func (c *contest) arguments() []string {
	args := []string{"--build-arg", "REGISTRY=" + c.registry.Prefix}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			args = append(args, "--build-arg", name+"="+value)
		}
	}
	return append(args, "-f", "Dockerfile")
}

// state names what build n begins with, for the repository it pushes to as well.
func (c *contest) state(who string, n int) string {
	if c.workload.known {
		n = 0
	}
	return fmt.Sprintf("%s-%d", who, n)
}

func (c *contest) ref(who string, n int) string {
	return fmt.Sprintf("%s/%s-%s:%d", c.registry.Prefix, filepath.Base(c.dir), c.state(who, n), n)
}

func (c *contest) bob(ctx context.Context, n int) (measure, error) {
	args := append([]string{"build", "--progress=plain", "-t", c.ref("bob", n)}, c.arguments()...)
	return c.time(ctx, harness.Invocation{
		Dir: c.dir, Cache: c.dir + "/" + c.state("bob", n), Args: append(args, "context"),
	})
}

func (c *contest) buildah(ctx context.Context, n int) (measure, error) {
	state := c.dir + "/" + c.state("buildah", n)
	policy := c.dir + "/policy.json"
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644); err != nil {
		return measure{}, err
	}
	var total measure
	bud := append([]string{
		"bud", fmt.Sprintf("--layers=%t", c.workload.known), "--network", "host", "--tls-verify=false", "--signature-policy", policy, "-t", "built",
	}, c.arguments()...)
	for _, args := range [][]string{
		append(bud, "context"),
		{"push", "--tls-verify=false", "--signature-policy", policy, "built", "docker://" + c.ref("buildah", n)},
	} {
		m, err := c.time(ctx, harness.Invocation{
			Program: "buildah", Dir: c.dir, Home: state,
			Args: append([]string{"--root", state + "/root", "--runroot", state + "/run", "--storage-driver", "overlay"}, args...),
			Env:  []string{"XDG_RUNTIME_DIR=" + state, "TMPDIR=" + c.dir, "BUILDAH_ISOLATION=" + isolation, c.NoAuth()},
		})
		if err != nil {
			return measure{}, err
		}
		total.took += m.took
	}
	return total, nil
}

// isolation is what buildah takes for rootless users where an OCI runtime and
// its cgroups are at hand; chroot is faster and needs less.
const isolation = "chroot"

func (c *contest) time(ctx context.Context, i harness.Invocation) (measure, error) {
	r, err := c.Start(ctx, i)
	if err != nil {
		return measure{}, err
	}
	peak, done := r.WatchMemory()
	result, err := r.Wait()
	<-done
	for _, left := range r.Leftovers() {
		fmt.Fprintln(os.Stderr, "left:", left)
	}
	if err == nil && result.Code != 0 {
		err = fmt.Errorf("%s %s: exit code %d\n%s", i.Program, strings.Join(i.Args, " "), result.Code, result.Stderr)
	}
	return measure{took: result.Took, peak: *peak}, err
}

func median(all []measure) time.Duration {
	took := make([]time.Duration, 0, len(all))
	for _, m := range all {
		took = append(took, m.took)
	}
	slices.Sort(took)
	return took[len(took)/2]
}

func peaks(all []measure) (self, tree int64) {
	for _, m := range all {
		self, tree = max(self, m.peak.Self), max(tree, m.peak.Tree)
	}
	return self, tree
}
