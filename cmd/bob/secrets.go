package main

import (
	"context"
	"errors"
	"flag"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/secret"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/command"
)

// secretFlags name the secrets and the SSH agents that a RUN may mount. They never
// become part of an image.
type secretFlags struct{ secrets, ssh cli.List }

func (f *secretFlags) register(fs *flag.FlagSet) {
	fs.Var(&f.secrets, "secret", "`spec` of a secret for RUN, id=NAME,src=PATH or id=NAME,env=NAME; repeatable")
	fs.Var(&f.ssh, "ssh", "`id[=paths]` of an agent for RUN: default, or a socket or keys; repeatable")
}

func (f *secretFlags) apply(ctx context.Context, o *options) error {
	return errors.Join(f.applySecrets(&o.build), f.applySSH(ctx, &o.build))
}

// applySecrets sets the secrets of RUN.
func (f *secretFlags) applySecrets(o *executor.Options) error {
	o.Secrets = make(map[string]command.Secret)
	for _, spec := range f.secrets.Values {
		id, parsed, err := secret.Parse(spec)
		if err != nil {
			return cli.Wrong("secret", spec, "%v", err)
		}
		o.Secrets[id] = parsed
	}
	return nil
}

// applySSH sets the SSH agents of RUN.
func (f *secretFlags) applySSH(ctx context.Context, o *executor.Options) error {
	o.SSH = make(map[string]*command.SSHAgent)
	for _, spec := range f.ssh.Values {
		id, value, _ := strings.Cut(spec, "=")
		if id == "" {
			return cli.Wrong("ssh", spec, "the ID is missing; want default or id=path")
		}
		if o.SSH[id] != nil {
			return cli.Wrong("ssh", spec, "there is already an agent with the ID %s", id)
		}
		agent, err := secret.Agent(ctx, value)
		if err != nil {
			return cli.Wrong("ssh", spec, "%v", err)
		}
		o.SSH[id] = agent
	}
	return nil
}
