package dockerfile_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the plans in testdata")

// TestGolden compares plans with those in testdata/*.txtar. The comment of an
// archive holds options, one on a line: "target NAME", "arg K=V", "label K=V",
// "platform arm64", "context NAME=IMAGE" (without an image one that is none). Its files are Dockerfile, the optional base.json (the
// configuration of every base image) and plan.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, base, want := goldenParts(t, archive)
			plan, err := planText(text, goldenOptions(t, string(archive.Comment)))
			if err != nil {
				t.Fatal(err)
			}
			got := render(plan, base)
			if again := render(plan, base); again != got {
				t.Errorf("second rendering differs:\n%s", again)
			}
			if *update {
				writeGolden(t, file, archive, got)
				return
			}
			if got != want {
				t.Errorf("plan differs (go test -update rewrites it); got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func goldenParts(t *testing.T, archive *txtar.Archive) (text string, base dockerspec.DockerOCIImage, want string) {
	t.Helper()
	base = imageWith("PATH=/bin", "BASE=1")
	for _, f := range archive.Files {
		switch f.Name {
		case "Dockerfile":
			text = string(f.Data)
		case "base.json":
			base = dockerspec.DockerOCIImage{}
			if err := json.Unmarshal(f.Data, &base); err != nil {
				t.Fatal(err)
			}
		case "plan":
			want = string(f.Data)
		default:
			t.Fatalf("unknown file %s", f.Name)
		}
	}
	return text, base, want
}

func goldenOptions(t *testing.T, comment string) dockerfile.Options {
	t.Helper()
	o := dockerfile.Options{BuildArgs: map[string]string{}, Labels: map[string]string{}, Contexts: map[string]dockerfile.Context{}}
	for line := range strings.Lines(comment) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		key, value, _ := strings.Cut(rest, "=")
		switch word {
		case "", "#":
		case "target":
			o.Target = rest
		case "arg":
			o.BuildArgs[key] = value
		case "label":
			o.Labels[key] = value
		case "context":
			o.Contexts[key] = dockerfile.Context{Image: value}
		case "platform":
			o.TargetPlatform, o.PlatformGiven = amd64, true
			o.TargetPlatform.Architecture = rest
		default:
			t.Fatalf("unknown option %q", line)
		}
	}
	return o
}

func writeGolden(t *testing.T, file string, archive *txtar.Archive, plan string) {
	t.Helper()
	files := archive.Files[:0:0]
	for _, f := range archive.Files {
		if f.Name != "plan" {
			files = append(files, f)
		}
	}
	archive.Files = append(files, txtar.File{Name: "plan", Data: []byte(plan)})
	if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
		t.Fatal(err)
	}
}
