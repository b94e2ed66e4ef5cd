package dockerfile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
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
