package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/await"
	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/executor/progress"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/distribution/reference"
)

// readyPatience is how long bob waits for the content of a workspace.
const readyPatience = 30 * time.Minute

// workspaceConfig is what bob build without arguments does: how workspace
// platforms start it, by their variables alone.
type workspaceConfig struct {
	baseRef, targetRef, dockerfile, contextDir cli.Text
	root, ready, log                           string
	buildBase                                  cli.Choice
	say                                        func(string) // tells what belongs to no step
}

func (w *workspaceConfig) register(fs *flag.FlagSet) {
	fs.Var(&w.targetRef, "target-ref", "`reference` of the workspace image (default localhost:8080/target:latest)")
	fs.Var(&w.baseRef, "base-ref", "`reference` of the base layer that the workspace image is made of (default localhost:8080/base:latest)")
	fs.Var(&w.buildBase, "build-base", "build the base layer from a Dockerfile first, unless it is there already")
	fs.Var(&w.dockerfile, "dockerfile-path", "the base layer's Dockerfile, a `path` under the workspace root")
	fs.Var(&w.contextDir, "context-dir", "`directory` that the base layer is built from (default: the working directory)")
	fs.StringVar(&w.root, "workspace-root", "/workspace", "`directory` of the workspace")
	fs.StringVar(&w.ready, "ready-file", "", "`path` that exists once the content of the workspace is there (default: .gitpod/ready in the workspace root)")
	fs.StringVar(&w.log, "failure-log", "", "`path` of the file that is given the reason when this fails (default: .gitpod/bob.log in the workspace root)")
}

// wanted reports whether the platform's variables ask for a workspace image.
func (w *workspaceConfig) wanted() bool {
	return w.baseRef != "" || w.targetRef != "" || w.dockerfile != "" || w.contextDir != "" || w.buildBase.Made
}

// completePaths fills in where the workspace is and what lies in it.
func (w *workspaceConfig) completePaths() error {
	var err error
	if w.root, err = filepath.Abs(w.root); err != nil {
		return fmt.Errorf("--workspace-root: %w", err)
	}
	for _, path := range []struct {
		value *string
		usual string
	}{{&w.ready, "ready"}, {&w.log, "bob.log"}} {
		if *path.value == "" {
			*path.value = filepath.Join(w.root, ".gitpod", path.usual)
		}
		if *path.value, err = filepath.Abs(*path.value); err != nil {
			return err
		}
	}
	return nil
}

// completeRefs fills in the references that were left out, and checks them.
func (w *workspaceConfig) completeRefs() error {
	for _, ref := range []struct {
		name  string
		value *cli.Text
		usual cli.Text
	}{
		{"BOB_BASE_REF", &w.baseRef, "localhost:8080/base:latest"},
		{"BOB_TARGET_REF", &w.targetRef, "localhost:8080/target:latest"},
	} {
		if *ref.value == "" {
			*ref.value = ref.usual
		}
		if _, err := reference.ParseNormalizedNamed(string(*ref.value)); err != nil {
			return cli.Errorf("%s=%s: %v", ref.name, *ref.value, err)
		}
	}
	return nil
}

// completeBase fills in and checks what the base layer is built from.
func (w *workspaceConfig) completeBase() error {
	if w.dockerfile == "" {
		return cli.Errorf("BOB_BUILD_BASE is set but BOB_DOCKERFILE_PATH isn't: it names the Dockerfile of the base layer")
	}
	path, err := filepath.Abs(string(w.dockerfile))
	if err != nil {
		return fmt.Errorf("BOB_DOCKERFILE_PATH: %w", err)
	}
	if !within(w.root, path) {
		return cli.Errorf("BOB_DOCKERFILE_PATH=%s: the Dockerfile must lie in %s", w.dockerfile, w.root)
	}
	w.dockerfile = cli.Text(path)
	if w.contextDir == "" {
		w.contextDir = "."
	}
	return nil
}

// within reports whether path lies below dir. Both are clean and absolute.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// input returns what the base layer is built from. The content of the
// workspace must be there.
func (w *workspaceConfig) input() (*input.Input, error) {
	path := string(w.dockerfile)
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the Dockerfile %s does not exist: check image.file in your configuration (.gitpod.yml)", path)
	}
	if err != nil {
		return nil, fmt.Errorf("BOB_DOCKERFILE_PATH: %w", err)
	}
	root, err := filepath.EvalSymlinks(w.root)
	if err != nil {
		return nil, fmt.Errorf("--workspace-root: %w", err)
	}
	if !within(root, target) {
		return nil, fmt.Errorf("the Dockerfile %s is a link to %s: it must lie in %s", path, target, w.root)
	}
	dir := string(w.contextDir)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return nil, fmt.Errorf("BOB_CONTEXT_DIR=%s: no such directory; check image.context in your configuration (.gitpod.yml)", dir)
	}
	name, err := filepath.Rel(root, target)
	return input.Within(dir, root, name, path), err
}

// execWorkspace makes the workspace image: from a base layer that is built
// first, if it has to be. Why it failed goes to the log that the workspace shows.
func (cfg *buildConfig) execWorkspace(ctx context.Context) (err error) {
	w := &cfg.workspace
	if err := w.completePaths(); err != nil {
		return err
	}
	if !sandbox.Entering() {
		_ = w.forget() // writing to it will tell what is wrong
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
	if !sandbox.Entering() {
		w.noteFormer()
	}
	if w.buildBase.Or(false) {
		if err := cfg.ensureBase(ctx, mode); err != nil {
			return interrupted(ctx, err)
		}
	}
	return interrupted(ctx, cfg.copyToTarget(ctx))
}

// noteFormer says what has taken the place of variables that mean nothing to
// bob: platforms set them for the builder that came before it.
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

// ensureBase builds the base layer and pushes it, unless what the registry has
// was built from the same inputs. It returns in the namespaces of the build if it
// had to build.
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
	if !sandbox.Entering() && !cfg.cache.none {
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

// baseIsCurrent reports whether the base layer in the registry was built from
// in and o. It makes one request for a manifest and needs nothing of what the
// Dockerfile names.
func (cfg *buildConfig) baseIsCurrent(ctx context.Context, in *input.Input, o *options) (_ bool, err error) {
	annotations, err := cfg.registries.client(cfg.workspace.say).Annotations(ctx, string(cfg.workspace.baseRef))
	if errors.Is(err, oci.ErrNotFound) || errors.Is(err, registry.ErrDenied) {
		return false, nil // some registries deny what isn't there
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
		return false, nil // the build reads the same files, and says where
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

// record writes to the log, for the workspace to show, why there is no image.
func (w *workspaceConfig) record(reason error) error {
	root, name, err := w.openLog()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no workspace that could show it
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var text bytes.Buffer
	report(&text, reason)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return root.WriteFile(name, text.Bytes(), 0o644)
}

// forget removes what an earlier failure left in the log.
func (w *workspaceConfig) forget() error {
	root, name, err := w.openLog()
	if err != nil {
		return err
	}
	defer root.Close()
	return root.Remove(name)
}

// openLog returns the log as a file below a root, which the caller closes. The
// files in a workspace are somebody else's: no link there leads out of it.
func (w *workspaceConfig) openLog() (root *os.Root, name string, err error) {
	dir := filepath.Dir(w.log)
	if within(w.root, w.log) {
		dir = w.root
	}
	if name, err = filepath.Rel(dir, w.log); err != nil {
		return nil, "", err
	}
	root, err = os.OpenRoot(dir)
	return root, name, err
}
