package dockerfile_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

func addSeeds(f *testing.F, add func(text string)) {
	f.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range archive.Files {
			if part.Name == "Dockerfile" {
				add(string(part.Data))
			}
		}
	}
	for _, text := range []string{
		everything,
		"# check=skip=all\nFROM a\n# check=skip=all\nRUN x\n",
		"FROM a\n# check=error=true;skip=x\nONBUILD RUN x\n",
		"# check=\nFROM a\n", "# check=x\nFROM a\n",
		"FROM a\nRUN <<EOF\n", "FROM a\nONBUILD", "FROM", "FROM a\nHEALTHCHECK", "FROM a\nENV A=${A//?/$A}",
		"FROM a\nRUN --mount=type=$A,target=$A --mount=from=b,source=/x,target=. --mount=type=secret,id=x,env=A y $A\n",
		"FROM a\nRUN --mount=type=cache,id=$A,target=/c,mode=0700 --mount=type=ssh --mount=type=tmpfs,target=/t,size=1g y\n",
		"FROM a\nCOPY --parents --exclude=*.a a/./$A *.b/./c /./ /\nCOPY --link --chmod=u=rwX,go=$A a b\n",
		"FROM a\nADD --checksum=$A https://x/$A git@x:y.git?ref=a&subdir=b#c:d https://x/y.git?$A /\n",
		"ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG A\nADD https://x/$A /\nFROM named\nFROM a AS named\nCOPY --from=named / /\n",
		"FROM a AS a\nFROM a AS a\nCOPY --from=a a a", "{", "\ufeffFROM a", "FROM a\n\\\n\\", "FROM a\nCOPY <<a <<a a\na\na\n",
	} {
		add(text)
	}
}

// FuzzParse checks that no text makes Parse panic, and that its errors have a
// location inside the file.
func FuzzParse(f *testing.F) {
	addSeeds(f, func(text string) { f.Add(text) })
	f.Fuzz(func(t *testing.T, text string) {
		_, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
		checkFuzzError(t, text, err)
	})
}

// FuzzPlan checks that no text, argument and trigger makes planning panic, and
// that steps are repeatable.
func FuzzPlan(f *testing.F) {
	addSeeds(f, func(text string) { f.Add(text, "v", "RUN x") })
	f.Add("FROM named AS image\nFROM image AS b\n", "/", "RUN --mount=from=image,target=$A x")
	f.Add("FROM a\nARG A\nRUN $A\n", "$A", "# check=skip=all\nCOPY --from=0 a b")
	f.Add("FROM scratch\nWORKDIR C:$A\nCOPY --parents a\\b\\./c D:\\\n", "\\\\x", "WORKDIR d:x")
	f.Fuzz(func(t *testing.T, text, arg, trigger string) {
		if len(arg) > 1<<10 {
			return // how much a value may grow to is TestExpansionBounds's; here it takes the time
		}
		fuzzPlan(t, text, arg, trigger, amd64)
		fuzzPlan(t, text, arg, trigger, ocispec.Platform{OS: "windows", Architecture: "amd64"})
	})
}

// fuzzPlan plans text for the target, over a base image with the trigger.
func fuzzPlan(t *testing.T, text, arg, trigger string, target ocispec.Platform) {
	t.Helper()
	file, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
	if err != nil {
		return
	}
	o := dockerfile.Options{
		BuildArgs: map[string]string{"A": arg, "http_proxy": arg}, TargetPlatform: target, BuildPlatform: arm64,
		Contexts: map[string]dockerfile.Context{"named": {}, "empty": {Image: "scratch"}, "image": {Image: "b"}},
	}
	_, err = file.EpochSource(o)
	checkFuzzError(t, text, err)
	plan, err := file.Plan(o)
	if err != nil {
		checkFuzzError(t, text, err)
		return
	}
	base := imageWith("A="+arg, arg)
	base.Platform = target
	base.Config.OnBuild = []string{trigger}
	base.Config.WorkingDir = arg
	for _, s := range plan.Stages {
		_, _, err := s.Steps(base)
		checkFuzzError(t, text, err)
	}
	if first, second := render(plan, base), render(plan, base); first != second {
		t.Errorf("got\n%s\nthen\n%s", first, second)
	}
}

func checkFuzzError(t *testing.T, text string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *dockerfile.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is not an *Error", err)
	}
	if lines := strings.Count(text, "\n") + 1; e.Start < 1 || e.End < e.Start || e.End > lines {
		t.Errorf("%v: lines %d to %d of %d", err, e.Start, e.End, lines)
	}
	if errors.As(e.Err, new(*dockerfile.Error)) {
		t.Errorf("%v has two locations", err)
	}
}
