package dockerfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/bobbuild/bob/dockerfile/internal/ports"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// configure carries out the instructions that only set something in the
// configuration, and returns their history entry.
func (st *state) configure(in instructions.Command) (string, error) {
	config := &st.image.Config
	switch c := in.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			st.env.Set(kv.Key, kv.Value)
			st.setEnv(kv.Key, kv.Value)
		}
		return joinPairs("ENV", c.Env), nil
	case *instructions.LabelCommand:
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, kv := range c.Labels {
			config.Labels[kv.Key] = kv.Value
		}
		return joinPairs("LABEL", c.Labels), nil
	case *instructions.MaintainerCommand:
		st.image.Author = c.Maintainer
		return "MAINTAINER " + c.Maintainer, nil
	case *instructions.UserCommand:
		config.User = c.User
		return "USER " + c.User, nil
	case *instructions.ShellCommand:
		config.Shell = slices.Clone(c.Shell)
		return fmt.Sprintf("SHELL %v", c.Shell), nil
	case *instructions.CmdCommand, *instructions.EntrypointCommand:
		return st.start(in), nil
	case *instructions.HealthCheckCommand:
		health := *c.Health
		health.Test = slices.Clone(health.Test)
		config.Healthcheck = &health
		return fmt.Sprintf("HEALTHCHECK %+v", health), nil
	case *instructions.VolumeCommand:
		return st.volume(c)
	case *instructions.StopSignalCommand:
		if err := checkSignal(c.Signal); err != nil {
			return "", err
		}
		config.StopSignal = c.Signal
		return "STOPSIGNAL " + c.Signal, nil
	case *instructions.OnbuildCommand:
		config.OnBuild = append(config.OnBuild, c.Expression)
		return "", nil
	default:
		return "", fmt.Errorf("%s is not supported yet", strings.ToUpper(in.Name()))
	}
}

// start sets CMD or ENTRYPOINT. An ENTRYPOINT drops a CMD that the base brought
// along, which was meant for another program.
func (st *state) start(in instructions.Command) string {
	config := &st.image.Config
	switch c := in.(type) {
	case *instructions.CmdCommand:
		st.cmdSet = true
		config.Cmd = st.commandLine(c.ShellDependantCmdLine)
		config.ArgsEscaped = true //nolint:staticcheck // deprecated, but BuildKit sets it and configurations should be equal
		return fmt.Sprintf("CMD %q", config.Cmd)
	case *instructions.EntrypointCommand:
		config.Entrypoint = st.commandLine(c.ShellDependantCmdLine)
		if !st.cmdSet {
			config.Cmd = nil
		}
		return fmt.Sprintf("ENTRYPOINT %q", config.Entrypoint)
	}
	return ""
}

func (st *state) commandLine(c instructions.ShellDependantCmdLine) []string {
	if c.PrependShell {
		return st.withShell(c.CmdLine)
	}
	return slices.Clone(c.CmdLine)
}

// withShell puts the shell of the image before a command line.
func (st *state) withShell(args []string) []string {
	shell := st.image.Config.Shell
	switch {
	case len(shell) > 0:
	case st.image.OS == paths.Windows:
		shell = []string{"cmd", "/S", "/C"}
	default:
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), strings.Join(args, " "))
}

func (st *state) volume(c *instructions.VolumeCommand) (string, error) {
	config := &st.image.Config
	if config.Volumes == nil {
		config.Volumes = map[string]struct{}{}
	}
	for _, v := range c.Volumes {
		if v == "" {
			return "", errors.New("VOLUME specified can not be an empty string")
		}
		config.Volumes[v] = struct{}{}
	}
	return fmt.Sprintf("VOLUME %v", c.Volumes), nil
}

// maxPorts is how many ports one EXPOSE may name: every one with each of the
// three protocols.
const maxPorts = 3 << 16

// expose adds ports to the configuration.
func (st *state) expose(c *instructions.ExposeCommand) (string, error) {
	var all []string
	for _, word := range c.Ports {
		words, err := st.lex.Words(word, &st.env)
		if err != nil {
			return "", err
		}
		for _, w := range words {
			st.checker.Port(w)
			more, err := ports.Parse(w)
			if err != nil {
				return "", err
			}
			if all = append(all, more...); len(all) > maxPorts {
				return "", fmt.Errorf("EXPOSE of more than %d ports", maxPorts)
			}
		}
	}
	config := &st.image.Config
	if config.ExposedPorts == nil {
		config.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range all {
		config.ExposedPorts[p] = struct{}{}
	}
	return fmt.Sprintf("EXPOSE %v", all), nil
}

// joinPairs renders "ENV A=1 B=2".
func joinPairs(name string, pairs instructions.KeyValuePairs) string {
	var b strings.Builder
	b.WriteString(name)
	for _, kv := range pairs {
		b.WriteString(" " + kv.String())
	}
	return b.String()
}

func envKey(kv string) string {
	key, _, _ := strings.Cut(kv, "=")
	return key
}

// setEnv sets a variable in the environment of the configuration, at its place if
// it is there already.
func (st *state) setEnv(key, value string) {
	env := st.image.Config.Env
	if st.envAt == nil {
		st.envAt = make(map[string]int)
		for i, kv := range slices.Backward(env) {
			st.envAt[envKey(kv)] = i
		}
	}
	at, ok := st.envAt[key]
	if !ok {
		at = len(env)
		env = append(env, "")
		st.envAt[key] = at
	}
	env[at] = key + "=" + value
	st.image.Config.Env = env
}

// checkSignal accepts what docker does: a number, or a name with or without
// SIG, in any case.
func checkSignal(name string) error {
	if n, err := strconv.Atoi(name); err == nil {
		if n == 0 {
			return fmt.Errorf("invalid signal: %s", name)
		}
		return nil
	}
	short := strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if unix.SignalNum("SIG"+short) != 0 || slices.Contains([]string{"CLD", "IOT", "POLL", "RTMIN", "RTMAX"}, short) {
		return nil
	}
	// Real-time signals are counted from both ends.
	for prefix, last := range map[string]int{"RTMIN+": 15, "RTMAX-": 14} {
		if digits, ok := strings.CutPrefix(short, prefix); ok {
			if n, err := strconv.Atoi(digits); err == nil && n >= 1 && n <= last {
				return nil
			}
		}
	}
	return fmt.Errorf("invalid signal: %s", name)
}

// apply puts the finish on the image of the target.
func (r *result) apply(image *dockerspec.DockerOCIImage) {
	if len(r.labels) > 0 && image.Config.Labels == nil {
		image.Config.Labels = map[string]string{}
	}
	maps.Copy(image.Config.Labels, r.labels)
	if p := r.platform; p != nil {
		same := p.OS == image.OS && p.Architecture == image.Architecture
		image.OS, image.Architecture = p.OS, p.Architecture
		if p.Variant != "" || !same {
			image.Variant = p.Variant
		}
		if p.OSVersion != "" || !same {
			image.OSVersion = p.OSVersion
		}
		if p.OSFeatures != nil {
			image.OSFeatures = slices.Clone(p.OSFeatures)
		}
	}
	image.Platform = platforms.Normalize(image.Platform)
}

// cloneImage returns a copy that shares no memory with image, without what
// belongs to one finished image only: creation time, layers and history.
func cloneImage(image dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	image.Created, image.History = nil, nil
	image.RootFS = ocispec.RootFS{}
	image.OSFeatures = slices.Clone(image.OSFeatures)
	c := &image.Config
	c.Env, c.Cmd, c.Entrypoint = slices.Clone(c.Env), slices.Clone(c.Cmd), slices.Clone(c.Entrypoint)
	c.OnBuild, c.Shell = slices.Clone(c.OnBuild), slices.Clone(c.Shell)
	c.ExposedPorts, c.Volumes, c.Labels = maps.Clone(c.ExposedPorts), maps.Clone(c.Volumes), maps.Clone(c.Labels)
	if c.Healthcheck != nil {
		health := *c.Healthcheck
		health.Test = slices.Clone(health.Test)
		c.Healthcheck = &health
	}
	return image
}
