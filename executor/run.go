package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// run prepares RUN.
func (at site) run(ctx context.Context, op *dockerfile.Run) (*operation, error) {
	if err := at.policy.allows(op, at.stage); err != nil {
		return nil, err
	}
	found, err := at.mountSources(ctx, op)
	if err != nil {
		return nil, err
	}
	for i, m := range op.Mounts {
		if m, ok := m.(*dockerfile.CacheMount); ok {
			at.caches.NoteMount(found.cacheKey(i, m), command.ID(m), command.Sharing(m))
		}
	}
	network, err := networkName(at.opts.Network)
	if err != nil {
		return nil, err
	}
	r, err := at.runRecipe(op, network, found)
	if err != nil {
		return nil, err
	}
	return &operation{
		key:     r.Key(),
		basis:   found.basis(),
		inputs:  r.Inputs(),
		files:   found.localFiles(),
		command: true,
		run: func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
			restored, err := at.commands.Run(ctx, to.Root(), op, found.sources(), v)
			if err != nil {
				return err
			}
			return to.Restored(restored)
		},
	}, nil
}

// runRecipe lists what the result of op depends on.
func (at site) runRecipe(op *dockerfile.Run, network string, found mountSources) (*recipe.Recipe, error) {
	r := recipe.New("run")
	r.Hidden(at.after.key.String())
	r.Add("platform", platformValues(at.stage.Platform)...)
	r.Add("USER", op.User)
	r.Add("WORKDIR", op.Dir)
	last := len(op.Args) - 1
	r.Add("SHELL", op.Args[:last]...)
	r.Add("command", op.Args[last])
	var names []string
	for _, kv := range visible(op) {
		name, value, _ := strings.Cut(kv, "=")
		r.Add(explain.Variable+name, value)
		names = append(names, name)
	}
	r.Add(explain.Order, names...)
	r.Add("--network", op.Network)
	r.Add("--security", recipe.Bool(op.Insecure))
	r.Add("BUILDKIT_SANDBOX_HOSTNAME", op.Hostname)
	r.Add("--network of the build", network)
	r.Add("--add-host", at.opts.ExtraHosts...)
	r.Add("--shm-size", recipe.Number(at.opts.ShmSize))
	r.Add("--ulimit", ulimitValues(at.opts.Ulimits)...)
	if op.Script != nil {
		r.Add("heredoc", string(op.Script.Content))
	}
	return r, addMounts(r, op, found)
}

// platformValues returns everything that distinguishes p from other platforms.
func platformValues(p ocispec.Platform) []string {
	return append([]string{p.OS, p.Architecture, p.Variant, p.OSVersion}, p.OSFeatures...)
}

func ulimitValues(all []sandbox.Ulimit) (values []string) {
	for _, u := range all {
		values = append(values, u.Name, recipe.Number(u.Soft), recipe.Number(u.Hard))
	}
	return values
}

// visible returns the variables of RUN that its key holds: all except proxies, since a
// proxy doesn't change what is fetched.
func visible(op *dockerfile.Run) []string {
	return slices.DeleteFunc(slices.Clone(op.Env), func(kv string) bool { return slices.Contains(op.Proxy, kv) })
}

// networkName returns the name of n in keys.
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
