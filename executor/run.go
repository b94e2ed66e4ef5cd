package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
)

// scriptDir is where a RUN finds the body of a heredoc that names its own
// interpreter.
const scriptDir = "/dev/pipes"

func (b *build) runOperation(ctx context.Context, st *state, op *dockerfile.Run, s *dockerfile.Stage) (*operation, error) {
	if err := b.policy.allows(op, s); err != nil {
		return nil, err
	}
	found, err := b.mountSources(ctx, st, op, s)
	if err != nil {
		return nil, err
	}
	b.noteMounts(op, found)
	network, err := networkName(b.opts.Network)
	if err != nil {
		return nil, err
	}
	key := newKey("run").str(st.key.String()).platform(s.Platform).
		list(op.Args).list(visible(op)).str(op.Dir).str(op.User).str(op.Network).
		list(b.opts.ExtraHosts).str(network).number(b.opts.ShmSize).ulimits(b.opts.Ulimits).
		bool(op.Script != nil)
	if op.Script != nil {
		key = key.str(string(op.Script.Content))
	}
	if key, err = mountKey(key.bool(op.Insecure).str(op.Hostname), op, found); err != nil {
		return nil, err
	}
	inputs, err := b.runInputs(op, network, found, s)
	if err != nil {
		return nil, err
	}
	return &operation{
		key:         key.sum(),
		basis:       found.basis(),
		explanation: explanation{inputs: inputs, files: found.localFiles()},
		run: func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
			restored, err := b.runProcess(ctx, to.Root(), op, found, v)
			if err != nil {
				return err
			}
			return to.Restored(restored)
		},
	}, nil
}

// visible is what RUN sees and its key holds. Which proxy fetched something
// says nothing about what was fetched.
func visible(op *dockerfile.Run) []string {
	return slices.DeleteFunc(slices.Clone(op.Env), func(kv string) bool { return slices.Contains(op.Proxy, kv) })
}

// runProcess runs the command of op. It returns the paths below root that are as they
// were in all but their ctime.
func (b *build) runProcess(ctx context.Context, root string, op *dockerfile.Run, found mountSources, v *event.Vertex) (restored []string, err error) {
	who, err := lookupUser(root, op.User)
	if err != nil {
		return nil, err
	}
	p := &sandbox.Process{
		Root:       root,
		Args:       op.Args,
		Env:        op.Env,
		Dir:        op.Dir,
		UID:        who.UID,
		GID:        who.GID,
		Groups:     who.Groups,
		Hostname:   op.Hostname,
		Insecure:   op.Insecure,
		ExtraHosts: b.opts.ExtraHosts,
		Network:    b.network(op),
		ShmSize:    b.opts.ShmSize,
		Ulimits:    b.opts.Ulimits,
		Stdout:     v.Log(1),
		Stderr:     v.Log(2),
	}
	if !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		p.Env = append(slices.Clip(p.Env), "HOME="+who.Home)
	}
	if err := b.trust(ctx, p); err != nil {
		return nil, err
	}
	mounts, err := b.mount(ctx, p, op, found, v)
	defer func() { err = errors.Join(err, mounts.close()) }()
	if err != nil {
		return nil, err
	}
	if op.Script != nil {
		m, remove, err := b.mountScript(op.Script)
		if err != nil {
			return nil, err
		}
		defer remove()
		p.Mounts = append(p.Mounts, m)
	}
	err = b.Runner.Run(ctx, p)
	if exit, ok := errors.AsType[*sandbox.ExitError](err); ok && !b.progress.Canceled(err) {
		return nil, fmt.Errorf("process %q did not complete successfully: %w", strings.Join(op.Args, " "), exit)
	}
	return p.Restored, err
}

// networkName is what keys call n.
func networkName(n sandbox.Network) (string, error) {
	switch n {
	case sandbox.Host:
		return "host", nil
	case sandbox.None:
		return "none", nil
	case sandbox.Private:
		return "private", nil
	}
	return "", fmt.Errorf("no network %d", n)
}

func (b *build) network(op *dockerfile.Run) sandbox.Network {
	switch op.Network {
	case "none":
		return sandbox.None
	case "host":
		return sandbox.Host
	default:
		return b.opts.Network
	}
}

// mountScript writes the body of a heredoc for RUN to find in scriptDir. The
// returned function removes it again.
func (b *build) mountScript(s *dockerfile.Script) (sandbox.Mount, func(), error) {
	dir, err := os.MkdirTemp(b.Store.TempDir(), "script-")
	if err != nil {
		return sandbox.Mount{}, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "script")
	if err := os.WriteFile(file, s.Content, 0o600); err != nil {
		remove()
		return sandbox.Mount{}, nil, err
	}
	// The user of the RUN may be anybody.
	if err := os.Chmod(file, 0o755); err != nil { //nolint:gosec // a script is there to be executed
		remove()
		return sandbox.Mount{}, nil, err
	}
	return sandbox.Mount{Source: file, Target: path.Join(scriptDir, s.Name), ReadOnly: true}, remove, nil
}
