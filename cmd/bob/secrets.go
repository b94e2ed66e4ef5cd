package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor"
)

// secretFlags say what a RUN with a mount of that type is given, and no image keeps.
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
	o.Secrets = make(map[string]executor.Secret)
	for _, spec := range f.secrets.Values {
		id, secret, err := parseSecret(spec)
		if err != nil {
			return cli.About("secret", spec, err)
		}
		o.Secrets[id] = secret
	}
	return nil
}

// applySSH sets the SSH agents of RUN.
func (f *secretFlags) applySSH(ctx context.Context, o *executor.Options) error {
	o.SSH = make(map[string]*executor.SSHAgent)
	for _, spec := range f.ssh.Values {
		id, value, _ := strings.Cut(spec, "=")
		if id == "" {
			return cli.Wrong("ssh", spec, "the ID is missing; want default or id=path")
		}
		if o.SSH[id] != nil {
			return cli.Wrong("ssh", spec, "there is already an agent with the ID %s", id)
		}
		agent, err := sshAgent(ctx, value)
		if err != nil {
			return cli.Wrong("ssh", spec, "%v", err)
		}
		o.SSH[id] = agent
	}
	return nil
}

// sshAgent opens what --ssh names: paths with commas between them, none for the
// user's own agent.
func sshAgent(ctx context.Context, paths string) (*executor.SSHAgent, error) {
	if paths != "" {
		return executor.NewSSHAgent(ctx, strings.Split(paths, ","))
	}
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, cli.Errorf("SSH_AUTH_SOCK is not set: start ssh-agent, or name a socket or key as id=path")
	}
	return executor.NewSSHAgent(ctx, []string{socket})
}

// parseSecret parses the argument of --secret, as docker build has it. A file is
// read when it is used, a variable now: the environment doesn't change.
func parseSecret(spec string) (id string, secret executor.Secret, err error) {
	fail := func(format string, args ...any) (string, executor.Secret, error) {
		return "", executor.Secret{}, cli.Errorf("--secret %s: "+format, append([]any{spec}, args...)...)
	}
	fields, err := cli.Fields(spec)
	if err != nil {
		return fail("%v", err)
	}
	var kind, file, env string
	for _, field := range fields {
		if !field.HasValue {
			return fail("field %q is no key=value", field.Key)
		}
		switch key, value := strings.ToLower(field.Key), field.Value; key {
		case "type":
			if value != "file" && value != "env" {
				return fail("unknown type %q; want file or env", value)
			}
			kind = value
		case "id":
			id = value
		case "source", "src":
			file = value
		case "env":
			env = value
		default:
			return fail("unknown field %q; want id, src, env or type", key)
		}
	}
	if id == "" {
		return fail("the id is missing")
	}
	if kind == "env" && env == "" {
		file, env = "", file // src names the variable
	}
	if env == "" && file == "" {
		if _, set := os.LookupEnv(id); set && kind != "file" || kind == "env" {
			env = id
		} else {
			file = id
		}
	}
	if file == "" {
		// One that isn't set is empty, as with docker build.
		return id, executor.Secret{Data: []byte(os.Getenv(env))}, nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fail("%v", err)
	case info.IsDir():
		return fail("%s is a directory", file)
	case info.Size() > executor.MaxSecretSize:
		return fail("%s has %d bytes, more than the %d that a secret may have", file, info.Size(), executor.MaxSecretSize)
	}
	if file, err = filepath.Abs(file); err != nil {
		return fail("%v", err)
	}
	return id, executor.Secret{File: file}, nil
}
