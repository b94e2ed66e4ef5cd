// Package secret finds what --secret and --ssh name on this machine: files, variables and
// agents.
package secret

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor/command"
)

// Agent opens what --ssh names: paths with commas between them, or nothing for the user's
// own agent.
func Agent(ctx context.Context, paths string) (*command.SSHAgent, error) {
	if paths != "" {
		return command.NewSSHAgent(ctx, strings.Split(paths, ","))
	}
	socket := os.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, errors.New("SSH_AUTH_SOCK is not set: start ssh-agent, or name a socket or key as id=path")
	}
	return command.NewSSHAgent(ctx, []string{socket})
}

// Parse parses the argument of --secret, as docker build has it. A file is
// read when it is used, a variable now: the environment doesn't change.
func Parse(spec string) (id string, secret command.Secret, err error) {
	fields, err := cli.Fields(spec)
	if err != nil {
		return "", secret, err
	}
	var kind, file, env string
	for _, field := range fields {
		if !field.HasValue {
			return "", secret, fmt.Errorf("field %q is no key=value", field.Key)
		}
		switch key, value := strings.ToLower(field.Key), field.Value; key {
		case "type":
			if value != "file" && value != "env" {
				return "", secret, fmt.Errorf("unknown type %q; want file or env", value)
			}
			kind = value
		case "id":
			id = value
		case "source", "src":
			file = value
		case "env":
			env = value
		default:
			return "", secret, fmt.Errorf("unknown field %q; want id, src, env or type", key)
		}
	}
	if id == "" {
		return "", secret, errors.New("the id is missing")
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
		return id, command.Secret{Data: []byte(os.Getenv(env))}, nil
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return "", secret, err
	case info.IsDir():
		return "", secret, fmt.Errorf("%s is a directory", file)
	case info.Size() > command.MaxSecretSize:
		return "", secret, fmt.Errorf("%s has %d bytes, more than the %d that a secret may have", file, info.Size(), command.MaxSecretSize)
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", secret, err
	}
	return id, command.Secret{File: file}, nil
}
