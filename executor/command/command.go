package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/account"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// Run runs the command of op in the file system at root, with mounts whose files come
// from found, by their index in op.Mounts; nil for a mount without files. Output goes
// to v. Run returns the paths below root that it changed and restored in everything
// except their ctime.
func (c *Commands) Run(ctx context.Context, root string, op *dockerfile.Run, found []*Source, v *event.Vertex) (restored []string, err error) {
	who, err := account.User(root, op.User)
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
		ExtraHosts: c.ExtraHosts,
		Network:    c.network(op),
		ShmSize:    c.ShmSize,
		Ulimits:    c.Ulimits,
		Stdout:     v.Log(1),
		Stderr:     v.Log(2),
	}
	if !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		p.Env = append(slices.Clip(p.Env), "HOME="+who.Home)
	}
	if err := c.trust(ctx, p); err != nil {
		return nil, err
	}
	mounts, err := c.mount(ctx, p, op, found, v)
	defer func() { err = errors.Join(err, mounts.close()) }()
	if err != nil {
		return nil, err
	}
	if op.Script != nil {
		m, remove, err := c.mountScript(op.Script)
		if err != nil {
			return nil, err
		}
		defer remove()
		p.Mounts = append(p.Mounts, m)
	}
	err = c.Runner.Run(ctx, p)
	if exit, ok := errors.AsType[*sandbox.ExitError](err); ok && !c.Progress.Canceled(err) {
		return nil, fmt.Errorf("process %q did not complete successfully: %w", strings.Join(op.Args, " "), exit)
	}
	return p.Restored, err
}

// mount gives the process the mounts of op. The caller calls close when the process has
// ended, also after an error.
func (c *Commands) mount(ctx context.Context, p *sandbox.Process, op *dockerfile.Run, found []*Source, v *event.Vertex) (*mounting, error) {
	m := &mounting{Commands: c, op: op, process: p, vertex: v, caches: make(map[digest.Digest]*snapshot.CacheMount)}
	if len(op.Mounts) == 0 {
		return m, nil
	}
	var err error
	if m.dir, err = os.MkdirTemp(c.Store.TempDir(), "mounts-"); err != nil {
		return m, err
	}
	m.undo = append(m.undo, func() error { return os.RemoveAll(m.dir) })
	if err := m.holdCaches(ctx, found); err != nil {
		return m, err
	}
	for i, spec := range op.Mounts {
		if err := m.add(ctx, spec, found[i]); err != nil {
			return m, err
		}
	}
	// Parents are mounted first, whatever the order in which they are written.
	slices.SortStableFunc(p.Mounts, func(a, b sandbox.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return m, nil
}

// add gives the process one mount.
func (m *mounting) add(ctx context.Context, spec dockerfile.Mount, from *Source) error {
	switch spec := spec.(type) {
	case *dockerfile.BindMount:
		root, err := m.files(ctx, from, spec.ReadOnly)
		if err != nil {
			return fmt.Errorf("mount on %s: %w", spec.Target, err)
		}
		return m.bind(root, from.Path, spec.Target, spec.ReadOnly)
	case *dockerfile.CacheMount:
		source := spec.Source
		if from != nil || spec.Emptied() {
			source = "/" // was copied
		}
		return m.bind(m.caches[CacheKey(spec, from)].Root(), source, spec.Target, spec.ReadOnly)
	case *dockerfile.TmpfsMount:
		m.process.Mounts = append(m.process.Mounts, sandbox.Mount{
			Kind: sandbox.Tmpfs, Target: spec.Target, Size: spec.Size, ReadOnly: spec.ReadOnly,
		})
		return nil
	case *dockerfile.SecretMount:
		return m.secret(ctx, spec)
	case *dockerfile.SSHMount:
		return m.agent(ctx, spec)
	default:
		return fmt.Errorf("no mount %T", spec)
	}
}

// network returns the network of op.
func (c *Commands) network(op *dockerfile.Run) sandbox.Network {
	switch op.Network {
	case "none":
		return sandbox.None
	case "host":
		return sandbox.Host
	default:
		return c.Network
	}
}

// scriptDir is where a RUN finds the body of a heredoc that names its own
// interpreter.
const scriptDir = "/dev/pipes"

// mountScript writes the body of a heredoc for RUN to find in scriptDir. The
// returned function removes it again.
func (c *Commands) mountScript(s *dockerfile.Script) (sandbox.Mount, func(), error) {
	dir, err := os.MkdirTemp(c.Store.TempDir(), "script-")
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
