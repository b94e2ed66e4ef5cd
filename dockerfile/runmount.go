package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// mounts returns the mounts of a RUN with expand applied to their values. The
// instruction keeps them in itself, where all users of the File would see them
// change: they are read from the text again.
func (c command) mounts(expand func(string) (string, error)) ([]*instructions.Mount, error) {
	if c.node == nil {
		return nil, nil // not a RUN, or one without mounts
	}
	// A nil linter would not survive a comment with lint options.
	again, err := instructions.ParseInstructionWithLinter(c.node, linter.New(&linter.Config{}))
	if err != nil {
		return nil, err
	}
	run, ok := again.(*instructions.RunCommand)
	if !ok {
		return nil, fmt.Errorf("%s has no mounts", c.node.Value)
	}
	if err := run.Expand(expand); err != nil {
		return nil, spelling.Mount(err)
	}
	return instructions.GetMounts(run), nil
}

// checkMounts finds the mistakes in the mounts of a RUN that don't depend on
// variables.
func (c command) checkMounts() error {
	constant := true
	_, err := c.mounts(func(word string) (string, error) {
		constant = constant && expand.Constant(word)
		return word, nil
	})
	if constant {
		return err
	}
	return nil
}

// mountMaker makes the mounts of one RUN.
type mountMaker struct {
	dir       string // that relative targets lie in
	namespace string // of the IDs of cache mounts
}

// mountOps makes the mounts of a RUN with expand applied to their values.
func (k mountMaker) mountOps(c command, expand func(string) (string, error)) ([]Mount, error) {
	mounts, err := c.mounts(expand)
	if err != nil {
		return nil, err
	}
	ops := make([]Mount, 0, len(mounts))
	for i, m := range mounts {
		op, err := k.mount(m, c.sources[i])
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// mount makes one mount. The source is what its from names, which was
// resolved before the variables of the other options were known.
func (k mountMaker) mount(m *instructions.Mount, from From) (Mount, error) {
	switch m.Type {
	case instructions.MountTypeSecret:
		return k.secret(m)
	case instructions.MountTypeSSH:
		return k.ssh(m)
	case instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs:
		return k.file(m, from)
	}
	return nil, fmt.Errorf("mount type %q is unknown", m.Type)
}

// file makes a mount that may be anywhere but on the root.
func (k mountMaker) file(m *instructions.Mount, from From) (Mount, error) {
	target := k.target(m.Target)
	switch {
	case target == "/":
		return nil, fmt.Errorf("invalid mount target %q: a mount can't replace the root", m.Target)
	case m.Type == instructions.MountTypeTmpfs:
		return &TmpfsMount{Target: target, Size: m.SizeLimit, ReadOnly: m.ReadOnly}, nil
	case m.Type == instructions.MountTypeCache:
		return k.cache(m, from, target), nil
	case m.From == "":
		from = From{}
	}
	return &BindMount{From: from, Source: path.Join("/", m.Source), Target: target, ReadOnly: m.ReadOnly}, nil
}

// target returns the absolute path of a mount.
func (k mountMaker) target(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(k.dir, name)
}

func (k mountMaker) cache(m *instructions.Mount, from From, target string) *CacheMount {
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
	}
	op := &CacheMount{
		ID: k.namespace + "/" + id, Target: target, Source: path.Join("/", m.Source),
		Sharing: string(m.CacheSharing), ReadOnly: m.ReadOnly,
	}
	if op.Sharing == "" {
		op.Sharing = string(instructions.MountSharingShared)
	}
	if !from.Scratch {
		op.From = &from
	}
	// An owner is for a directory made anew, which hides what from holds.
	if op.Source == "/" && (m.UID != nil || m.GID != nil || m.Mode != nil) {
		owner := mountOwner(m, 0o755)
		op.Owner, op.From = &owner, nil
	}
	return op
}

func mountOwner(m *instructions.Mount, mode uint32) MountOwner {
	owner := MountOwner{Mode: mode}
	if m.UID != nil {
		owner.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		owner.GID = uint32(*m.GID)
	}
	if m.Mode != nil {
		owner.Mode = uint32(*m.Mode & 0o777)
	}
	return owner
}

func (k mountMaker) secret(m *instructions.Mount) (Mount, error) {
	id := m.CacheID
	if m.Source != "" {
		id = m.Source
	}
	if id == "" {
		if m.Target == "" {
			return nil, errors.New("secret mount: one of source, target required")
		}
		id = path.Base(m.Target)
	}
	op := &SecretMount{ID: id, Required: m.Required, Owner: mountOwner(m, 0o400)}
	if m.Env != nil {
		op.Env = *m.Env
		if op.Env == "" || strings.ContainsAny(op.Env, "=\x00") {
			return nil, fmt.Errorf("secret mount %s: %q is no name for a variable", id, op.Env)
		}
	}
	switch {
	case m.Target != "":
		op.Target = k.target(m.Target)
	case m.Env == nil:
		op.Target = path.Join("/run/secrets", path.Base(id))
	}
	if op.Target == "/" {
		return nil, fmt.Errorf("invalid mount target %q: a mount can't replace the root", m.Target)
	}
	return op, nil
}

func (k mountMaker) ssh(m *instructions.Mount) (Mount, error) {
	if m.Source != "" {
		return nil, errors.New("ssh does not support source")
	}
	op := &SSHMount{ID: m.CacheID, Required: m.Required, Owner: mountOwner(m, 0o600)}
	if op.ID == "" {
		op.ID = "default"
	}
	if m.Target != "" {
		if op.Target = k.target(m.Target); op.Target == "/" {
			return nil, fmt.Errorf("invalid mount target %q: a mount can't replace the root", m.Target)
		}
	}
	return op, nil
}
