package dockerfile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/opencontainers/go-digest"
)

// TestLint checks where each of BuildKit's rules finds something, and that it
// finds nothing in the repaired file or below a comment that says so.
func TestLint(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"FROM scratch AS Big\n", []string{"1 StageNameCasing Stage name 'Big' should be lowercase"}},
		{"FROM scratch as b\n", []string{"1 FromAsCasing 'as' and 'FROM' keywords' casing do not match"}},
		{"# check=skip=FromAsCasing\nFROM scratch as b\n", nil},
		{"FROM scratch\nRUN a \\\n\n b\n", []string{"4 NoEmptyContinuation Empty continuation line"}},
		{"FROM scratch\nuser x\nENV a=b\n", []string{"2 ConsistentInstructionCasing Command 'user' should match the case of the command majority (uppercase)"}},
		{"FROM scratch AS a\nFROM scratch AS a\n", []string{`2 DuplicateStageName Duplicate stage name "a", stage names should be unique`}},
		{"FROM scratch AS context\n", []string{`1 ReservedStageName Stage name should not use the same name as reserved stage "context"`}},
		{"FROM scratch\nCMD x\n", []string{"2 JSONArgsRecommended JSON arguments recommended for CMD to prevent unintended behavior related to OS signals"}},
		{"FROM scratch AS a\nSHELL [\"/x\"]\nFROM a\nENTRYPOINT x\n", nil},
		{"FROM scratch\n# check=skip=all\nCMD x\n", nil},
		{"FROM scratch\nMAINTAINER x\n", []string{"2 MaintainerDeprecated Maintainer instruction is deprecated in favor of using label"}},
		{"ARG V\nFROM a$V$W\n", []string{"2 UndefinedArgInFrom FROM argument 'W' is not declared (did you mean V?)"}},
		{"FROM scratch\nWORKDIR a\nWORKDIR b\n", []string{`2 WorkdirRelativePath Relative workdir "a" can have unexpected results if the base image changes`}},
		{"FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n", nil},
		{"FROM scratch\nENV PATH=$PAHT:/x\n", []string{"2 UndefinedVar Usage of undefined variable '$PAHT' (did you mean $PATH?)"}},
		{"FROM scratch\nARG foo\nUSER $foo\n", nil},
		{"FROM scratch\nRUN --mount=target=/a$long x\n", []string{"2 UndefinedVar Usage of undefined variable '$long'"}},
		{"FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n", []string{"2 MultipleInstructionsDisallowed Multiple CMD instructions should not be used in the same stage because only the last one will be used"}},
		{"FROM scratch\nENV a b\n", []string{`2 LegacyKeyValueFormat "ENV key=value" should be used instead of legacy "ENV key value" format`}},
		{"FROM --platform=$TARGETPLATFORM scratch\n", []string{"1 RedundantTargetPlatform Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"}},
		{"FROM scratch\nARG api_key public_key\n", []string{`2 SecretsUsedInArgOrEnv Do not use ARG or ENV instructions for sensitive data (ARG "api_key")`}},
		{"ARG V=x:\nFROM $V\n", []string{"2 InvalidDefaultArgInFrom Default value for ARG $V results in empty or invalid base image name"}},
		{"FROM --platform=linux/amd64 scratch\n", []string{`1 FromPlatformFlagConstDisallowed FROM --platform flag should not use constant value "linux/amd64"`}},
		{"FROM --platform=linux/amd64 scratch AS my-amd64\n", nil},
		{"FROM scratch\nCOPY gone kept /\nADD https://example.org/gone /\n", []string{`2 CopyIgnoredFile Attempting to Copy file "gone" that is excluded by .dockerignore`}},
		{"# check=experimental=all\n# no\nFROM scratch AS a\n", []string{"3 InvalidDefinitionDescription Comment for FROM should follow the format: `# a <description>`"}},
		{"FROM scratch\nEXPOSE 80/TCP\n", []string{"2 ExposeProtoCasing Defined protocol '80/TCP' in EXPOSE instruction should be lowercase"}},
		{"FROM scratch\nEXPOSE 1:80\n", []string{"2 ExposeInvalidFormat EXPOSE instruction should not define an IP address or host-port mapping, found '1:80'"}},
	} {
		file, err := dockerfile.Parse("Dockerfile", strings.NewReader(tc.text))
		if err != nil {
			t.Fatalf("%s%v", tc.text, err)
		}
		o := dockerfile.Options{
			TargetPlatform: amd64, BuildPlatform: amd64, AllStages: true,
			Ignore: []string{"gone"}, BuildArgs: map[string]string{"V": "alpine"},
		}
		plan, err := file.Plan(o)
		if err != nil {
			t.Fatalf("%s%v", tc.text, err)
		}
		warnings := plan.Warnings
		for _, s := range plan.Stages {
			more, err := s.Lint(imageWith())
			if err != nil {
				t.Fatalf("%s%v", tc.text, err)
			}
			warnings = append(warnings, more...)
		}
		var got []string
		for _, w := range warnings {
			if w.Rule != "" {
				got = append(got, fmt.Sprintf("%d %s %s", w.Location.Start, w.Rule, w.Text))
			}
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%sgot  %q\nwant %q", tc.text, got, tc.want)
		}
		if (dockerfile.Violations(warnings) != nil) != (len(tc.want) > 0) {
			t.Errorf("%sviolations: %v", tc.text, dockerfile.Violations(warnings))
		}
	}
}

// TestLintBeforeMistake: what stands before a mistake is found, and what takes
// the whole file only if every instruction could be read.
func TestLintBeforeMistake(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text    string
		want    []string
		mistake string
	}{
		{"FROM scratch as a\nMAINTAINER x\nENV a b\nWRONG\nMAINTAINER y\n", []string{"1 FromAsCasing", "2 MaintainerDeprecated"}, "Dockerfile:4: unknown instruction: WRONG"},
		{"FROM scratch\nenv a b\nEXPOSE x\nENV c d\nMAINTAINER x\n", []string{"2 ConsistentInstructionCasing", "2 LegacyKeyValueFormat", "5 MaintainerDeprecated"}, `Dockerfile:3: invalid port: "x"`},
		{"FROM scratch\nENV a b\nCOPY --from=b / /\nENV c d\nFROM scratch AS b\n", []string{"2 LegacyKeyValueFormat"}, `Dockerfile:3: cannot copy from stage "b"`},
		{"FROM scratch\nENV a b\nRUN --device=x y\nRUN --device=z,required y\nENV c d\n", []string{"2 LegacyKeyValueFormat"}, "Dockerfile:4: RUN --device"},
		{"MAINTAINER x\n", []string{"1 MaintainerDeprecated"}, "Dockerfile:1: MAINTAINER before the first FROM"},
		{"ARG A=${x\nFROM scratch as b\n", []string{"2 FromAsCasing"}, "Dockerfile:1: "},
	} {
		file, err := dockerfile.Parse("Dockerfile", strings.NewReader(tc.text))
		if err != nil {
			t.Fatalf("%s%v", tc.text, err)
		}
		o := dockerfile.Options{TargetPlatform: amd64, BuildPlatform: amd64, AllStages: true}
		if _, err := file.Plan(o); err == nil || !strings.HasPrefix(err.Error(), tc.mistake) {
			t.Errorf("%sthe plan has the error %v, want %s", tc.text, err, tc.mistake)
		}
		o.Unchecked = true
		var warnings []dockerfile.Warning
		plan, err := file.Plan(o)
		if err != nil {
			warnings, err = file.Lint(o)
		} else {
			warnings = plan.Warnings
			for _, s := range plan.Stages {
				var more []dockerfile.Warning
				if err == nil {
					more, err = s.Lint(imageWith())
					warnings = append(warnings, more...)
				}
			}
		}
		if err == nil || !strings.HasPrefix(err.Error(), tc.mistake) {
			t.Errorf("%sgot the error %v, want %s", tc.text, err, tc.mistake)
		}
		var got []string
		for _, w := range warnings {
			got = append(got, fmt.Sprint(w.Location.Start, " ", w.Rule))
		}
		slices.Sort(got)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%sgot  %q\nwant %q", tc.text, got, tc.want)
		}
	}
}

// TestLintSourceImages: images that files are taken from are compared with the
// platform of the build, each time they are named.
func TestLintSourceImages(t *testing.T) {
	t.Parallel()
	const text = "FROM scratch AS a\nCOPY --from=one / /\n# check=skip=all\nCOPY --from=one / /\n" +
		"RUN --mount=from=two:1,target=/a --mount=type=tmpfs,target=/b --mount=type=cache,from=one,target=/c x\n" +
		"FROM base\nCOPY --from=a / /\nCOPY --from=0 / /\nCOPY --from=scratch / /\nCOPY --from=named / /\nCOPY --from=local / /\n"
	file, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := file.Plan(dockerfile.Options{
		TargetPlatform: arm64, BuildPlatform: amd64, AllStages: true,
		Contexts: map[string]dockerfile.Context{"named": {Image: "other"}, "local": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	base := imageWith()
	base.Config.OnBuild = []string{"COPY --from=trigger / /"}
	var got, texts, references []string
	for _, s := range plan.Stages {
		images, err := s.SourceImages(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range images {
			texts, references = append(texts, i.Text), append(references, i.Reference)
			other := imageWith()
			other.RootFS.DiffIDs = []digest.Digest{"sha256:0"}
			for _, w := range i.Lint(other) {
				got = append(got, fmt.Sprintf("%d %s %s", w.Location.Start, w.Rule, w.Text))
			}
			if found := i.Lint(imageWith()); len(found) > 0 {
				t.Errorf("an image without layers gets %v", found)
			}
		}
	}
	const wrong = ` was pulled with platform "linux/amd64", expected "linux/arm64" for current build`
	want := []string{
		"2 InvalidBaseImagePlatform Base image one" + wrong, "4 InvalidBaseImagePlatform Base image one" + wrong,
		"5 InvalidBaseImagePlatform Base image two:1" + wrong, "5 InvalidBaseImagePlatform Base image one" + wrong,
		"6 InvalidBaseImagePlatform Base image trigger" + wrong,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if want := []string{"COPY --from=one", "COPY --from=one", "RUN --mount=from=two:1", "RUN --mount=from=one", "COPY --from=trigger", "COPY --from=named"}; !slices.Equal(texts, want) {
		t.Errorf("named by %q, want %q", texts, want)
	}
	const hub = "docker.io/library/"
	if want := []string{hub + "one:latest", hub + "one:latest", hub + "two:1", hub + "one:latest", hub + "trigger:latest", hub + "other:latest"}; !slices.Equal(references, want) {
		t.Errorf("references %q, want %q", references, want)
	}
}
