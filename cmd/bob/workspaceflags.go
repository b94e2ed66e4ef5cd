package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/distribution/reference"
)

// workspaceConfig holds the settings of bob build without arguments. Workspace
// platforms start it so, and give settings by variables only.
type workspaceConfig struct {
	baseRef, targetRef, dockerfile, contextDir cli.Text
	root, ready, log                           string
	buildBase                                  cli.Choice
	say                                        func(string) // shows messages that belong to no step
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

// record writes the reason why there is no image to the log, which the workspace shows.
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

// openLog returns the log as a file below a root, which the caller closes. The files in
// a workspace belong to others, so no link is followed out of it.
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
