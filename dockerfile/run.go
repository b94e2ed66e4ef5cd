package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/system"
)

// defaultPath is the PATH of images that set none. Windows has its own.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// pipes is the directory in which a Script is found.
const pipes = "/dev/pipes/"

// run makes the operation of a RUN and its history entry.
func (st *state) run(cmd command, c *instructions.RunCommand) (Op, string, error) {
	args, script, err := runArgs(c, st.image.OS)
	if err != nil {
		return nil, "", err
	}
	shown := args
	if c.PrependShell {
		shown = st.withShell(args)
	}
	op := &Run{
		Args: slices.Clone(shown), Dir: st.place().Dir, User: st.image.Config.User, Script: script,
		Hostname: st.scope.buildArgs[argHostname],
		Insecure: instructions.GetSecurity(c) == instructions.SecurityInsecure,
	}
	maker := mountMaker{dir: op.Dir, namespace: st.scope.buildArgs[argCacheNamespace]}
	if op.Mounts, err = maker.mountOps(cmd, st.expand); err != nil {
		return nil, "", err
	}
	if script != nil {
		op.Args = args // the interpreter is the script's own; BuildKit has the shell start it
	}
	op.Env, op.Proxy = st.runEnv()
	if network := instructions.GetNetwork(c); network != instructions.NetworkDefault {
		op.Network = network
	}
	return op, "RUN " + strings.Join(append(st.shownArgs(), shown...), " ") + " # buildkit", nil
}

// runArgs returns the command line without its shell. Heredocs go into it: one
// alone is the command, one that begins with "#!" is a script, and others are
// put back behind the line for the shell to read. Windows has no such scripts.
func runArgs(c *instructions.RunCommand, os string) ([]string, *Script, error) {
	if len(c.Files) == 0 {
		return c.CmdLine, nil, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, nil, errors.New("RUN in exec form takes no heredoc")
	}
	line, first := c.CmdLine[0], c.Files[0]
	if parser.MustParseHeredoc(line) == nil {
		var b strings.Builder
		b.WriteString(line)
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, nil, nil
	}
	data := first.Data
	if first.Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if os == paths.Windows || !strings.HasPrefix(data, "#!") {
		return []string{data}, nil, nil
	}
	if err := paths.CheckName(first.Name); err != nil {
		return nil, nil, fmt.Errorf("RUN heredoc: %w", err)
	}
	return []string{pipes + first.Name}, &Script{Name: first.Name, Content: []byte(data)}, nil
}

// runEnv returns the environment of a RUN and the part of it that the proxy
// arguments add.
func (st *state) runEnv() (env, proxy []string) {
	for _, kv := range st.scope.proxy {
		if _, set := st.env.Get(envKey(kv)); !set {
			proxy = append(proxy, kv)
		}
	}
	return append(st.env.List(), proxy...), proxy
}

// shownArgs returns the arguments as the history of a RUN begins with them:
// "|2 A=1 B=2", each name once at its first place, with its current value.
func (st *state) shownArgs() []string {
	index := map[string]int{}
	out := []string{""}
	for _, arg := range st.args {
		value, ok := st.env.Get(arg.key)
		if !ok {
			value = arg.value
		}
		i, ok := index[arg.key]
		if !ok {
			i = len(out)
			index[arg.key] = i
			out = append(out, "")
		}
		out[i] = arg.key + "=" + value
	}
	if len(index) == 0 {
		return nil
	}
	out[0] = fmt.Sprintf("|%d", len(index))
	return out
}

// workdir changes the working directory, which is created unless it is the
// root. The configuration keeps the path as it was written; a path of Windows loses its
// drive letter there and gets backslashes.
func (st *state) workdir(c *instructions.WorkdirCommand) (Op, string, error) {
	dir, err := system.NormalizeWorkdir(st.image.Config.WorkingDir, c.Path, st.image.OS)
	if err != nil {
		return nil, "", err
	}
	st.image.Config.WorkingDir = dir
	dir = system.ToSlash(dir, st.image.OS)
	return workdirOp(dir, st.image.Config.User), "WORKDIR " + dir, nil
}

// workdirOp makes dir, which always exists if it is the root.
func workdirOp(dir, user string) Op {
	if clean := path.Clean(dir); clean != "/" {
		return &Workdir{Path: clean, User: user}
	}
	return nil
}
