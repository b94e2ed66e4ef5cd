package dockerfile_test

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

const everything = `ARG G=1
FROM busybox AS base
ARG G
ENV A=$G B=x
LABEL l=$A
VOLUME /v$A
EXPOSE 80$A
HEALTHCHECK CMD x
CMD ["c"]
ONBUILD RUN t $A
ONBUILD COPY <<F /t
$A
F
FROM base
SHELL ["/sh", "-c"]
WORKDIR $B
USER u$A
COPY --chown=$A --chmod=0$G a$A <<F "$B/"
$A
F
RUN --network=host --mount=target=/m$A --mount=type=cache,target=c,uid=5 x
COPY --parents --exclude=*.x --link --from=img a/./b /
ADD --unpack https://x.example/$A /
ENTRYPOINT y
STOPSIGNAL $G
`

func fullImage() dockerspec.DockerOCIImage {
	image := imageWith("PATH=/bin", "E=1")
	image.OSFeatures = []string{"f"}
	c := &image.Config
	c.Cmd, c.Entrypoint, c.Shell = []string{"c"}, []string{"e"}, []string{"/s"}
	c.OnBuild = []string{"ENV T=1"}
	c.Labels = map[string]string{"a": "b"}
	c.Volumes, c.ExposedPorts = map[string]struct{}{"/x": {}}, map[string]struct{}{"1/tcp": {}}
	c.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
	return image
}

// TestPure checks that steps are the same each time, from many goroutines, that
// the argument is left alone, and that nothing shares memory.
func TestPure(t *testing.T) {
	t.Parallel()
	plan := mustPlan(t, everything, dockerfile.Options{Labels: map[string]string{"k": "v"}})
	base := fullImage()
	want, image, err := plan.Target().Steps(base)
	if err != nil {
		t.Fatal(err)
	}
	text := render(plan, base)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			steps, final, err := plan.Target().Steps(base)
			if err != nil || !reflect.DeepEqual(steps, want) || !reflect.DeepEqual(final, image) {
				t.Errorf("steps differ: %v", err)
			}
			for i := range steps {
				scribble(&steps[i])
			}
			scribbleImage(&final)
		})
	}
	group.Wait()
	if !reflect.DeepEqual(base, fullImage()) {
		t.Error("the base was changed")
	}
	for i := range want {
		kept := toJSON(want[i])
		for j := range want {
			if j != i {
				scribble(&want[j])
			}
		}
		scribbleImage(&image)
		if toJSON(want[i]) != kept {
			t.Fatalf("step %d shares memory with another", i)
		}
		if want, image, err = plan.Target().Steps(base); err != nil {
			t.Fatal(err)
		}
	}
	if again := render(plan, base); again != text {
		t.Errorf("the plan was changed:\n%s\nwas\n%s", again, text)
	}
}

// scribble overwrites what can be reached from a step.
func scribble(step *dockerfile.Step) {
	switch op := step.Op.(type) {
	case *dockerfile.Run:
		for _, list := range [][]string{op.Args, op.Env, op.Proxy} {
			for i := range list {
				list[i] = "scribble"
			}
		}
		for _, m := range op.Mounts {
			switch m := m.(type) {
			case *dockerfile.BindMount:
				m.Target = "scribble"
			case *dockerfile.CacheMount:
				m.ID, m.Owner.UID = "scribble", 7
			case *dockerfile.TmpfsMount:
				m.Target = "scribble"
			case *dockerfile.SecretMount:
				m.ID = "scribble"
			case *dockerfile.SSHMount:
				m.ID = "scribble"
			}
		}
	case *dockerfile.Copy:
		for i := range op.Exclude {
			op.Exclude[i] = "scribble"
		}
		for i := range op.Sources {
			switch src := op.Sources[i].(type) {
			case *dockerfile.Path:
				src.Name = "scribble"
			case *dockerfile.Inline:
				for j := range src.Content {
					src.Content[j] = '!'
				}
			case *dockerfile.Download:
				src.URL = "scribble"
			case *dockerfile.Repository:
				src.Remote = "scribble"
			}
		}
	case *dockerfile.Workdir:
		op.Path = "scribble"
	}
}

// scribbleImage overwrites what can be reached from a configuration.
func scribbleImage(image *dockerspec.DockerOCIImage) {
	c := &image.Config
	for _, list := range [][]string{c.Env, c.Cmd, c.Entrypoint, c.Shell, c.OnBuild, image.OSFeatures} {
		for i := range list {
			list[i] = "scribble"
		}
		_ = append(list, "scribble")
	}
	for k := range c.Labels {
		c.Labels[k] = "scribble"
	}
	clear(c.Volumes)
	clear(c.ExposedPorts)
	if c.Healthcheck != nil {
		c.Healthcheck.Test[0] = "scribble"
	}
}

// TestEntrypointResetsCmd checks whose CMD an ENTRYPOINT drops.
func TestEntrypointResetsCmd(t *testing.T) {
	t.Parallel()
	base := imageWith()
	base.Config.Cmd = []string{"base"}
	for text, want := range map[string]string{
		"FROM a\nENTRYPOINT e\n":                               "",
		"FROM a\nCMD [\"c\"]\nENTRYPOINT e\n":                  "c",
		"FROM a\nENTRYPOINT e\nCMD [\"c\"]\n":                  "c",
		"FROM a AS b\nCMD [\"c\"]\nFROM b\nENTRYPOINT [\"e\"]": "",
		"FROM a\nENV x=y\n":                                    "base",
	} {
		image := mustImage(t, text, dockerfile.Options{}, base)
		if got := strings.Join(image.Config.Cmd, " "); got != want {
			t.Errorf("%q: CMD %q, want %q", text, got, want)
		}
	}
}

func TestDestination(t *testing.T) {
	t.Parallel()
	for dest, want := range map[string]string{
		"/x": "/x", "/x/": "/x/", "x": "/w/x", "x/": "/w/x/", ".": "/w/", "./": "/w/", "./x/.": "/w/x/",
		"/": "/", "..": "/", "../y": "/y", "/a//b/../c": "/a/c", `""`: "/w/", "/.": "/",
	} {
		steps := mustSteps(t, "FROM a\nWORKDIR /w\nCOPY f "+dest+"\n", dockerfile.Options{}, imageWith())
		op, ok := steps[1].Op.(*dockerfile.Copy)
		if !ok || op.Dest != want {
			t.Errorf("%s: %+v, want %s", dest, steps[1].Op, want)
		}
	}
}

func TestWorkdir(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ base, text, config, op string }{
		{"", "WORKDIR a", "/a", "/a"},
		{"/b", "WORKDIR a", "/b/a", "/b/a"},
		{"b", "WORKDIR a", "/b/a", "/b/a"},
		{"/b", "WORKDIR ..", "/", ""},
		{"/b", "WORKDIR /", "/", ""},
		{"/b", "WORKDIR /a/", "/a/", "/a"},
		{"/b", "WORKDIR $NONE", "/b", "/b"},
		{"", "WORKDIR $NONE", "/", ""},
	} {
		base := imageWith()
		base.Config.WorkingDir = tc.base
		text := "FROM a\n" + tc.text + "\n"
		step, image := mustSteps(t, text, dockerfile.Options{}, base)[0], mustImage(t, text, dockerfile.Options{}, base)
		got := ""
		if op, ok := step.Op.(*dockerfile.Workdir); ok {
			got = op.Path
		}
		if got != tc.op || image.Config.WorkingDir != tc.config || step.History.CreatedBy != "WORKDIR "+tc.config || step.History.EmptyLayer != (tc.op == "") {
			t.Errorf("%q in %q: %q, %+v, want %q", tc.text, tc.base, got, step, tc.op)
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"9", "SIGKILL", "kill", "sigTERM", "RTMIN+3", "SIGRTMAX-14", "RTMIN", "SIGPOLL", "99"} {
		if _, err := planText("FROM a\nSTOPSIGNAL "+s+"\n", dockerfile.Options{}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"0", "SIG", "RTMIN+16", "RTMIN+x", "RTMAX-0", "SIGSIGKILL", "TERMX", "UNUSED"} {
		if _, err := planText("FROM a\nSTOPSIGNAL "+s+"\n", dockerfile.Options{}); err == nil {
			t.Errorf("%s is accepted", s)
		}
	}
}

// TestNeeds checks which stages are planned, and in what order.
func TestNeeds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"FROM a AS x\nFROM b AS y\nFROM c\nCOPY --from=x a a\n":                  "x stage-2",
		"FROM a AS x\nFROM x AS y\nFROM b\nFROM y\n":                             "x y stage-3",
		"FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x a a\n":                  "x stage-2",
		"FROM a AS x\nONBUILD COPY --from=z a a\nFROM x\n":                       "x stage-1",
		"FROM a AS z\nFROM a AS x\nONBUILD COPY --from=z a a\nFROM x\n":          "z x stage-2",
		"FROM a\nCOPY --from=unknown a a\n":                                      "stage-0",
		"FROM a AS x\nFROM b AS y\nCOPY --from=X a a\nFROM c\nCOPY --from=1 a a": "x y stage-2",
	} {
		var got []string
		for _, s := range mustPlan(t, text, dockerfile.Options{}).Stages {
			got = append(got, s.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", text, got, want)
		}
	}
}

// TestImageTriggerStage checks that a trigger of a base image may name a stage
// that nothing else needs.
func TestImageTriggerStage(t *testing.T) {
	t.Parallel()
	base := imageWith()
	base.Config.OnBuild = []string{"COPY --from=Tools /t /t", "COPY --from=img /t /t"}
	target := mustPlan(t, "FROM a AS tools\nRUN x\nFROM b\n", dockerfile.Options{}).Target()
	steps, _, err := target.Steps(base)
	if err != nil {
		t.Fatal(err)
	}
	first, ok1 := steps[0].Op.(*dockerfile.Copy)
	second, ok2 := steps[1].Op.(*dockerfile.Copy)
	if !ok1 || !ok2 || first.From.Stage == nil || first.From.Stage.Name != "tools" || second.From.Image != "docker.io/library/img:latest" {
		t.Errorf("got %+v and %+v", steps[0].Op, steps[1].Op)
	}
	if _, _, err := first.From.Stage.Steps(imageWith()); err != nil {
		t.Error(err)
	}
}

func TestRoot(t *testing.T) {
	t.Parallel()
	target := mustPlan(t, "FROM a AS x\nFROM x AS y\nFROM y\n", dockerfile.Options{}).Target()
	if root := target.Root(); root.Index != 0 || root.Base.Reference != "docker.io/library/a:latest" || root.Root() != root {
		t.Errorf("root is %+v", root)
	}
	if names := []string{target.Title(), target.Root().Title()}; !slices.Equal(names, []string{"stage-2", "x"}) {
		t.Errorf("titles %v", names)
	}
}

// TestLongChain checks a chain of many stages, through which every variable
// goes again and again.
func TestLongChain(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("FROM a AS s0\n")
	for i := 1; i < 1500; i++ {
		fmt.Fprintf(&text, "FROM s%d AS s%d\nENV K%d=1\n", i-1, i, i)
	}
	image := mustImage(t, text.String(), dockerfile.Options{}, imageWith("PATH=/bin"))
	if n := len(image.Config.Env); n != 1500 {
		t.Errorf("%d variables", n)
	}
}

// TestManyInstructions checks that four times as many instructions take about four times
// the memory, whatever they set in the configuration.
func TestManyInstructions(t *testing.T) {
	for _, line := range []string{
		"ENV A%d=x", "LABEL a.%d=x", "ARG A%d=x", "EXPOSE %d", "VOLUME /v%d", "ONBUILD RUN x%d", "WORKDIR /w%d", "CMD c%d", "COPY f%d /",
	} {
		allocated := func(n int) uint64 {
			var text strings.Builder
			text.WriteString("FROM a\n")
			for i := range n {
				fmt.Fprintf(&text, line+"\n", i+1)
			}
			target := mustPlan(t, text.String(), dockerfile.Options{}).Target()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, _, err := target.Steps(imageWith("PATH=/bin")); err != nil {
				t.Fatal(err)
			}
			if _, err := target.Lint(imageWith("PATH=/bin")); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			return after.TotalAlloc - before.TotalAlloc
		}
		if few, many := allocated(1000), allocated(4000); many > 7*few {
			t.Errorf("%s: 1000 take %d bytes, 4000 take %d", line, few, many)
		}
	}
}

func BenchmarkManyInstructions(b *testing.B) {
	for _, line := range []string{"ENV A%d=x", "ENV A%d=$B", "LABEL a.%d=x"} {
		b.Run(line, func(b *testing.B) {
			b.ReportAllocs()
			var text strings.Builder
			text.WriteString("FROM a\n")
			for i := range 10000 {
				fmt.Fprintf(&text, line+"\n", i)
			}
			for b.Loop() {
				target := mustPlan(b, text.String(), dockerfile.Options{}).Target()
				if _, _, err := target.Steps(imageWith()); err != nil {
					b.Fatal(err)
				}
				if _, err := target.Lint(imageWith()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestBareRun checks a RUN without a command, which docker takes as one that
// does nothing.
func TestBareRun(t *testing.T) {
	t.Parallel()
	run, step := lastRun(t, mustSteps(t, "FROM a\nRUN\n", dockerfile.Options{}, imageWith()))
	if !slices.Equal(run.Args, []string{"/bin/sh", "-c", ""}) || step.History.CreatedBy != "RUN /bin/sh -c  # buildkit" {
		t.Errorf("%q, %q", run.Args, step.History.CreatedBy)
	}
}
