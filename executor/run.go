package executor

import (
	"context"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
)

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
			restored, err := b.commands.run(ctx, to.Root(), op, found, v)
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
