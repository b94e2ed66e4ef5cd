package dockerfile_test

import (
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// TestMountsArePrivate checks that stages that share a RUN with mounts, each
// with variables of its own, don't see each other's values.
func TestMountsArePrivate(t *testing.T) {
	t.Parallel()
	const text = "FROM a AS x\nONBUILD RUN --mount=type=cache,target=/c$A,id=$A x\nFROM b\nARG A\nRUN --mount=type=cache,target=/$A,id=$A x\n"
	file, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, value := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		group.Go(func() {
			for range 20 {
				plan, err := file.Plan(dockerfile.Options{BuildArgs: map[string]string{"A": value}, TargetPlatform: amd64, BuildPlatform: amd64})
				if err != nil {
					t.Error(err)
					return
				}
				steps, _, err := plan.Target().Steps(imageWith())
				if err != nil {
					t.Error(err)
					return
				}
				run, _ := lastRun(t, steps)
				want := &dockerfile.CacheMount{ID: "/" + value, Target: "/" + value, Source: "/", Sharing: "shared"}
				if !reflect.DeepEqual(run.Mounts, []dockerfile.Mount{want}) {
					t.Errorf("got %+v, want %+v", run.Mounts[0], want)
				}
			}
		})
	}
	group.Wait()
}

// TestNamedContextImage checks that the image of a context that is no reference
// counts as that of the base, and that a directory counts as scratch.
func TestNamedContextImage(t *testing.T) {
	t.Parallel()
	o := dockerfile.Options{Contexts: map[string]dockerfile.Context{"ctx": {}}}
	base := imageWith("E=1")
	base.Config.WorkingDir = "/w"
	base.Config.OnBuild = []string{"RUN t"}
	for text, want := range map[string]struct {
		steps int
		dir   string
	}{
		"FROM ctx\nWORKDIR x\n":                       {2, "/w/x"},
		"FROM a AS ctx\nRUN never\n":                  {0, "/w"},
		"FROM a AS ctx\nRUN never\nFROM ctx\nRUN x\n": {1, "/w"},
	} {
		target := mustPlan(t, text, o).Target()
		steps, image, err := target.Steps(base)
		if err != nil || len(steps) != want.steps || image.Config.WorkingDir != want.dir || image.Config.OnBuild != nil {
			t.Errorf("%q: %d steps, %+v, %v", text, len(steps), image.Config, err)
		}
		if root := target.Root(); root.Base.Context != "ctx" {
			t.Errorf("%q: root is %+v", text, root.Base)
		}
	}
	steps, image, err := mustPlan(t, "FROM ctx\nWORKDIR x\n", o).Target().Steps(dockerspec.DockerOCIImage{})
	if err != nil || len(steps) != 1 || image.Config.WorkingDir != "/x" || image.Architecture != "amd64" {
		t.Errorf("a directory: %+v, %v", steps, err)
	}
}

func TestNamedContextErrors(t *testing.T) {
	t.Parallel()
	for name, context := range map[string]string{"A b": "", "a::b/c/d/e": "", "x": "B"} {
		_, err := planText("FROM a\n", dockerfile.Options{Contexts: map[string]dockerfile.Context{name: {Image: context}}})
		if err == nil || !strings.Contains(err.Error(), `Dockerfile: named context "`+name+`"`) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestFromImagePlatform checks that the platform of a stage doesn't count for
// the images it copies from.
func TestFromImagePlatform(t *testing.T) {
	t.Parallel()
	s := mustPlan(t, "FROM --platform=linux/arm64 a\nCOPY --from=b / /\n", dockerfile.Options{}).Target()
	if s.Platform.Architecture != "arm64" || s.TargetPlatform().Architecture != "amd64" {
		t.Errorf("%v and %v", s.Platform, s.TargetPlatform())
	}
}

func TestSyntaxArgument(t *testing.T) {
	t.Parallel()
	const foreign = "# syntax=foo/bar\nFROM a\n"
	for _, tc := range []struct{ text, arg, want string }{
		{foreign, "", "Dockerfile:1: syntax foo/bar is another frontend"},
		{foreign, "docker/dockerfile:1.7 x=y", ""},
		{foreign, "dockerfile.v0", ""},
		{foreign, "x/y", "Dockerfile: BUILDKIT_SYNTAX=x/y is another frontend"},
		{"FROM a\n", "x/y", "Dockerfile: BUILDKIT_SYNTAX=x/y is another frontend"},
		{"# syntax=foo/bar\nFOO a\n", "dockerfile.v0", "Dockerfile:1: syntax foo/bar is another frontend"},
	} {
		_, err := planText(tc.text, dockerfile.Options{BuildArgs: map[string]string{"BUILDKIT_SYNTAX": tc.arg}})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want)) {
			t.Errorf("%q with %q: %v, want %s", tc.text, tc.arg, err, tc.want)
		}
	}
}

// TestEpoch checks SOURCE_DATE_EPOCH as argument and global default.
func TestEpoch(t *testing.T) {
	t.Parallel()
	const stage = "FROM scratch AS src\nARG V=1\nADD https://x.example/$V.tar /\n"
	commit := time.Unix(77, 5)
	for _, tc := range []struct {
		name, text, arg string
		given           bool
		source          *time.Time
		want            string // history of the ARG in the stage, or the error
		epoch           int64
	}{
		{"none", "FROM a\n", "", false, nil, "ARG SOURCE_DATE_EPOCH", -1},
		{"number", "FROM a\n", "012", true, nil, "ARG SOURCE_DATE_EPOCH=12", 12},
		{"before 1970", "FROM a\n", "-1", true, nil, "ARG SOURCE_DATE_EPOCH=-1", -1},
		{"empty", "ARG SOURCE_DATE_EPOCH=5\nFROM a\n", "", true, nil, "ARG SOURCE_DATE_EPOCH", -1},
		{"argument wins", "ARG SOURCE_DATE_EPOCH=5\nFROM a\n", "6", true, nil, "ARG SOURCE_DATE_EPOCH=6", 6},
		{"directory", "FROM a\n", "context", true, nil, "ARG SOURCE_DATE_EPOCH", -1},
		{"repository", "FROM a\n", "context", true, &commit, "ARG SOURCE_DATE_EPOCH=77", 77},
		{"stage", "ARG SOURCE_DATE_EPOCH=SRC\n" + stage + "FROM a\n", "", false, nil, "Dockerfile:1: invalid SOURCE_DATE_EPOCH", -1},
		{"stage in lower case", "ARG SOURCE_DATE_EPOCH=src\n" + stage + "FROM a\n", "", false, &commit, "ARG SOURCE_DATE_EPOCH=77", 77},
		{"stage without time", "ARG SOURCE_DATE_EPOCH=src\n" + stage + "FROM a\n", "", false, &time.Time{}, "ARG SOURCE_DATE_EPOCH", -1},
		{"stage not asked", "ARG SOURCE_DATE_EPOCH=src\n" + stage + "FROM a\n", "", false, nil, "was not looked up", -1},
		{"stage with more", stage + "RUN x\nFROM a\n", "src", true, nil, "Dockerfile:1: SOURCE_DATE_EPOCH stage does not meet", -1},
		{"stage of an image", "FROM a AS src\nFROM a\n", "src", true, nil, "must use FROM scratch", -1},
		{"stage of a path", "FROM scratch AS src\nADD x /\nFROM a\n", "src", true, nil, "Dockerfile:2: SOURCE_DATE_EPOCH stage source must be", -1},
		{"nothing", "FROM scratch AS src\nFROM a\n", "sry", true, nil, "invalid SOURCE_DATE_EPOCH: sry (did you mean src?)", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := dockerfile.Options{SourceEpoch: tc.source}
			if tc.given {
				o.BuildArgs = map[string]string{"SOURCE_DATE_EPOCH": tc.arg}
			}
			plan, err := planText(tc.text+"ARG SOURCE_DATE_EPOCH\n", o)
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				return
			}
			steps, _, err := plan.Target().Steps(imageWith())
			if err != nil || steps[0].History.CreatedBy != tc.want {
				t.Errorf("got %+v, %v, want %s", steps, err, tc.want)
			}
			if got := plan.Epoch; tc.epoch != -1 && (got == nil || got.Unix() != tc.epoch) {
				t.Errorf("epoch %v, want %d", got, tc.epoch)
			}
			if tc.given && o.BuildArgs["SOURCE_DATE_EPOCH"] != tc.arg {
				t.Error("the options were changed")
			}
		})
	}
}

// TestEpochSource checks whose time is asked for.
func TestEpochSource(t *testing.T) {
	t.Parallel()
	file, err := dockerfile.Parse("Dockerfile", strings.NewReader(
		"ARG R=main\nFROM scratch AS git\nARG R\nADD --checksum=ab https://x.example/y.git#$R:d /\nFROM scratch AS web\nARG R=x\nADD https://x.example/$R.tar /\n"))
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]*dockerfile.EpochSource{
		"":        nil,
		"5":       nil,
		"context": {Context: "context"},
		"named":   {Context: "named"},
		"git":     {Source: &dockerfile.Repository{Remote: "https://x.example/y.git", Ref: "main", Subdir: "d", Checksum: "ab"}},
		"web":     {Source: &dockerfile.Download{URL: "https://x.example/x.tar", Name: "x.tar"}},
	} {
		got, err := file.EpochSource(dockerfile.Options{
			BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": value}, TargetPlatform: amd64, BuildPlatform: amd64,
			Contexts: map[string]dockerfile.Context{"named": {}},
		})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", value, got, err, want)
		}
	}
}
