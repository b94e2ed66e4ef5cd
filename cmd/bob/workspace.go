package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/await"
	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/progress"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/distribution/reference"
)

// readyPatience is how long bob waits for the content of a workspace.
const readyPatience = 30 * time.Minute

// execWorkspace builds the base layer if it has to, and makes the workspace image from
// it. It writes the reason of a failure to the log that the workspace shows.
func (cfg *buildConfig) execWorkspace(ctx context.Context) (err error) {
	w := &cfg.workspace
	if err := w.completePaths(); err != nil {
		return err
	}
	if !isolation.Entering() {
		_ = w.forget() // the error shows again when the log is written
	}
	defer func() {
		if err == nil {
			return
		}
		if logErr := w.record(err); logErr != nil {
			err = errors.Join(err, fmt.Errorf("--failure-log: %w", logErr))
		}
	}()
	if err := w.completeRefs(); err != nil {
		return err
	}
	mode, err := cfg.view.mode()
	if err != nil {
		return err
	}
	if err := cfg.registries.check(ctx); err != nil {
		return err
	}
	w.say = notices(cfg.stderr, mode == progress.Quiet || mode == progress.RawJSON)
	if !isolation.Entering() {
		w.noteFormer()
	}
	if w.buildBase.Or(false) {
		if err := cfg.ensureBase(ctx, mode); err != nil {
			return interrupted(ctx, err)
		}
	}
	return interrupted(ctx, cfg.copyToTarget(ctx))
}

// noteFormer names the replacements of variables that bob ignores. Platforms set them
// for the builder that they used before bob.
func (w *workspaceConfig) noteFormer() {
	for _, former := range [][2]string{
		{"BOB_EXTERNAL_BUILDKITD", "bob needs no BuildKit daemon, it builds in its own process"},
		{"BOB_LOCAL_CACHE_IMPORT", "what was built or fetched before is found in the cache directory (BOB_CACHE_DIR)"},
	} {
		if os.Getenv(former[0]) != "" {
			w.say(former[0] + " is not needed any more: " + former[1])
		}
	}
}

// ensureBase builds the base layer and pushes it, unless the one in the registry was
// built from the same inputs. If it builds, it has entered the namespaces of the build
// when it returns.
func (cfg *buildConfig) ensureBase(ctx context.Context, mode progress.Mode) error {
	w := &cfg.workspace
	if err := w.completeBase(); err != nil {
		return err
	}
	if err := await.File(ctx, w.ready, readyPatience, func(waited time.Duration) {
		w.say(fmt.Sprintf("waiting for the content of the workspace (%s), %s so far", w.ready, waited.Round(time.Second)))
	}); err != nil {
		return err
	}
	in, err := w.input()
	if err != nil {
		return err
	}
	o, err := cfg.options(ctx)
	if err != nil {
		return err
	}
	if len(o.platforms) > 1 {
		return cli.Errorf("--platform: a workspace is for one platform, and several were given")
	}
	o.build.Tags, o.fingerprint = []string{string(w.baseRef)}, true
	// The outer process has looked already.
	if !isolation.Entering() && !cfg.cache.none {
		current, err := cfg.baseIsCurrent(ctx, in, o)
		if err != nil {
			return err
		}
		if current {
			w.say(fmt.Sprintf("%s is built from the same files: nothing to do", w.baseRef))
			return nil
		}
	}
	if ref, err := reference.ParseNormalizedNamed(string(w.baseRef)); err == nil {
		if d, ok := ref.(reference.Digested); ok {
			return cli.Errorf("BOB_BASE_REF=%s: what would be built can't be pushed as %s: name a tag alone", w.baseRef, d.Digest())
		}
	}
	_, err = cfg.enterAndBuild(ctx, in, o, mode)
	return err
}

// baseIsCurrent reports whether the base layer in the registry was built from in and o.
// It makes one request for a manifest, and fetches nothing that the Dockerfile names.
func (cfg *buildConfig) baseIsCurrent(ctx context.Context, in *input.Input, o *options) (_ bool, err error) {
	annotations, err := cfg.registries.client(cfg.workspace.say).Annotations(ctx, string(cfg.workspace.baseRef))
	if errors.Is(err, oci.ErrNotFound) || errors.Is(err, registry.ErrDenied) {
		return false, nil // some registries answer "denied" if the image doesn't exist
	}
	if err != nil {
		return false, err
	}
	src, err := in.Open(ctx, "", nil) // a directory needs no more
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	b := o.build
	b.Context, b.Ignore, b.Fingerprint = src.Context, src.Ignore, src.Dockerfile.Fingerprint(o.plan)
	current, err := b.UpToDate(ctx, annotations)
	if err != nil && ctx.Err() == nil {
		return false, nil // the build reads the same files and reports the error with its place
	}
	return current, err
}

// copyToTarget makes the base layer the workspace image, and prints its digest.
func (cfg *buildConfig) copyToTarget(ctx context.Context) error {
	w := &cfg.workspace
	d, err := transfer.Copy(ctx, cfg.registries.client(cfg.workspace.say), string(w.baseRef), string(w.targetRef), transfer.Options{})
	if err != nil {
		return err
	}
	w.say(fmt.Sprintf("%s is now %s", w.targetRef, w.baseRef))
	_, err = fmt.Fprintln(cfg.stdout, d.Digest)
	return err
}
