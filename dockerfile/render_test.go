package dockerfile_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

// mustPlan parses and plans for linux/amd64.
func mustPlan(t testing.TB, text string, o dockerfile.Options) *dockerfile.Plan {
	t.Helper()
	p, err := planText(text, o)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	return p
}

func planText(text string, o dockerfile.Options) (*dockerfile.Plan, error) {
	f, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if o.TargetPlatform.OS == "" {
		o.TargetPlatform = amd64
	}
	if o.BuildPlatform.OS == "" {
		o.BuildPlatform = amd64
	}
	return f.Plan(o)
}

// mustSteps returns the steps of the target.
func mustSteps(t testing.TB, text string, o dockerfile.Options, base dockerspec.DockerOCIImage) []dockerfile.Step {
	t.Helper()
	steps, _, err := mustPlan(t, text, o).Target().Steps(base)
	if err != nil {
		t.Fatalf("steps: %v", err)
	}
	return steps
}

// mustImage returns the configuration that the target ends with.
func mustImage(t testing.TB, text string, o dockerfile.Options, base dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	t.Helper()
	_, image, err := mustPlan(t, text, o).Target().Steps(base)
	if err != nil {
		t.Fatalf("steps: %v", err)
	}
	return image
}

// lastRun returns the last RUN of the target.
func lastRun(t testing.TB, steps []dockerfile.Step) (*dockerfile.Run, dockerfile.Step) {
	t.Helper()
	for _, step := range slices.Backward(steps) {
		if run, ok := step.Op.(*dockerfile.Run); ok {
			return run, step
		}
	}
	t.Fatal("no RUN")
	return nil, dockerfile.Step{}
}

// copied returns the sources of a COPY or ADD.
func copied(t *testing.T, step dockerfile.Step) []dockerfile.Source {
	t.Helper()
	op, ok := step.Op.(*dockerfile.Copy)
	if !ok {
		t.Fatalf("%+v is no Copy", step.Op)
	}
	return op.Sources
}

func imageWith(env ...string) dockerspec.DockerOCIImage {
	image := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: amd64}}
	image.Config.Env = env
	return image
}

// render writes a plan as text. Images are shown as what each step changes in
// them.
func render(p *dockerfile.Plan, base dockerspec.DockerOCIImage) string {
	var b strings.Builder
	if p.Epoch != nil {
		fmt.Fprintf(&b, "epoch %d\n", p.Epoch.Unix())
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	for _, s := range p.Stages {
		from := "scratch"
		switch {
		case s.Base.Stage != nil:
			from = "stage " + s.Base.Stage.String()
		case s.Base.Reference != "":
			from = s.Base.Reference
		case s.Base.Context != "":
			from = "named context " + s.Base.Context
		}
		fmt.Fprintf(&b, "stage %d name=%q title=%q platform=%s/%s at %s from %s needs %v\n",
			s.Index, s.Name, s.Title(), s.Platform.OS, s.Platform.Architecture, s.Location, from, s.Needs())
		steps, image, err := s.Steps(base)
		if err != nil {
			fmt.Fprintf(&b, "  error: %v\n", err)
			continue
		}
		images, err := s.Images(base)
		before := dockerspec.DockerOCIImage{}
		for i, step := range steps {
			renderStep(&b, step)
			for _, change := range changes(before, images[i]) {
				fmt.Fprintf(&b, "    config %s\n", change)
			}
			before = images[i]
		}
		fmt.Fprintf(&b, "  image: %s %v\n", toJSON(image), err)
	}
	return b.String()
}

func renderStep(b *strings.Builder, step dockerfile.Step) {
	fmt.Fprintf(b, "  %s-%d %s\n", step.Location, step.Location.End, step.Text)
	switch op := step.Op.(type) {
	case *dockerfile.Run:
		fmt.Fprintf(b, "    run %q\n    env %q\n    dir %q user %q network %q\n", op.Args, op.Env, op.Dir, op.User, op.Network)
		if op.Insecure || op.Hostname != "" {
			fmt.Fprintf(b, "    insecure %t hostname %q\n", op.Insecure, op.Hostname)
		}
		for _, m := range op.Mounts {
			fmt.Fprintf(b, "    mount %s\n", renderMount(m))
		}
		if op.Script != nil {
			fmt.Fprintf(b, "    script %s %q\n", op.Script.Name, op.Script.Content)
		}
		if len(op.Proxy) > 0 {
			fmt.Fprintf(b, "    proxy %q\n", op.Proxy)
		}
	case *dockerfile.Copy:
		fmt.Fprintf(b, "    copy from %s to %q chown %q chmod %q\n", renderFrom(op.From), op.Dest, op.Chown, op.Chmod)
		if op.Link || len(op.Exclude) > 0 {
			fmt.Fprintf(b, "    link %t exclude %q\n", op.Link, op.Exclude)
		}
		for _, src := range op.Sources {
			switch src := src.(type) {
			case *dockerfile.Path:
				fmt.Fprintf(b, "    path %q parents %q unpack %t\n", src.Name, src.Parents, src.Unpack)
				if src.Required {
					b.WriteString("      which must exist\n")
				}
			case *dockerfile.Inline:
				fmt.Fprintf(b, "    file %s %q\n", src.Name, src.Content)
			default:
				fmt.Fprintf(b, "    %T %s\n", src, toJSON(src))
			}
		}
	case *dockerfile.Workdir:
		fmt.Fprintf(b, "    workdir %q user %q\n", op.Path, op.User)
	}
	fmt.Fprintf(b, "    history %s\n", toJSON(step.History))
}

func renderFrom(from dockerfile.From) string {
	switch {
	case from.Stage != nil:
		return "stage " + from.Stage.String()
	case from.Image != "":
		return from.Image
	case from.Context != "":
		return "named context " + from.Context
	case from.Scratch:
		return "scratch"
	}
	return "context"
}

func renderMount(m dockerfile.Mount) string {
	switch m := m.(type) {
	case *dockerfile.BindMount:
		return fmt.Sprintf("bind %s:%s at %s readonly %t", renderFrom(m.From), m.Source, m.Target, m.ReadOnly)
	case *dockerfile.CacheMount:
		from := "nothing"
		if m.From != nil {
			from = renderFrom(*m.From)
		}
		return fmt.Sprintf("cache %s %s of %s:%s at %s readonly %t owner %+v", m.ID, m.Sharing, from, m.Source, m.Target, m.ReadOnly, m.Owner)
	default:
		return fmt.Sprintf("%T %s", m, toJSON(m))
	}
}

// changes lists the fields of the configuration that differ.
func changes(before, after dockerspec.DockerOCIImage) []string {
	fields := func(image dockerspec.DockerOCIImage) map[string]any {
		var m map[string]any
		if err := json.Unmarshal([]byte(toJSON(image.Config)), &m); err != nil {
			panic(err)
		}
		m["author"] = image.Author
		return m
	}
	a, b := fields(before), fields(after)
	names := map[string]bool{}
	for k := range a {
		names[k] = true
	}
	for k := range b {
		names[k] = true
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(names)) {
		if toJSON(a[k]) != toJSON(b[k]) {
			out = append(out, k+" "+toJSON(b[k]))
		}
	}
	return out
}

func toJSON(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}
