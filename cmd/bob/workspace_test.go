package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorkspaceMistakes has a platform ask for what can't be made. The reason is
// the error and is in the log, and nothing outside the workspace is touched.
func TestWorkspaceMistakes(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		args  []string // $W is the workspace, $O a directory beside it
		links map[string]string
		want  string
		code  int
		logs  bool
	}{
		"no Dockerfile named": {
			args: []string{"--build-base"},
			want: "BOB_DOCKERFILE_PATH isn't", code: exitUsage, logs: true,
		},
		"Dockerfile outside": {
			args: []string{"--build-base", "--dockerfile-path=$O/Dockerfile"},
			want: "must lie in $W", code: exitUsage, logs: true,
		},
		"Dockerfile beside a directory of that name": {
			args: []string{"--build-base", "--dockerfile-path=$W-more/Dockerfile"},
			want: "must lie in $W", code: exitUsage, logs: true,
		},
		"Dockerfile missing": {
			args: []string{"--build-base", "--dockerfile-path=$W/repo/Dockerfile"},
			want: "the Dockerfile $W/repo/Dockerfile does not exist: check image.file in your configuration", code: exitFailed, logs: true,
		},
		"Dockerfile is a link to the outside": {
			args:  []string{"--build-base", "--dockerfile-path=$W/Dockerfile"},
			links: map[string]string{"$W/Dockerfile": "$O/Dockerfile"},
			want:  "is a link to $O/Dockerfile: it must lie in $W", code: exitFailed, logs: true,
		},
		"context missing": {
			args:  []string{"--build-base", "--dockerfile-path=$W/Dockerfile", "--context-dir=$W/none"},
			links: map[string]string{"$W/Dockerfile": ".gitpod/ready"},
			want:  "BOB_CONTEXT_DIR=$W/none: no such directory", code: exitFailed, logs: true,
		},
		"reference": {
			args: []string{"--target-ref=localhost:5000/UPPER"},
			want: "BOB_TARGET_REF=localhost:5000/UPPER:", code: exitUsage, logs: true,
		},
		"log is a link to the outside": {
			args:  []string{"--build-base"},
			links: map[string]string{"$W/.gitpod/bob.log": "$O/file"},
			want:  "BOB_DOCKERFILE_PATH isn't", code: exitUsage, logs: true,
		},
		"log through a link to the outside": {
			args:  []string{"--build-base", "--failure-log=$W/l/file"},
			links: map[string]string{"$W/l": "$O"},
			want:  "--failure-log:", code: exitUsage,
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w, o := filepath.Join(dir, "w"), filepath.Join(dir, "o")
			expand := strings.NewReplacer("$W", w, "$O", o).Replace
			for name, content := range map[string]string{"$W/.gitpod/ready": "", "$O/Dockerfile": "FROM scratch", "$O/file": "kept"} {
				if err := os.MkdirAll(filepath.Dir(expand(name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(expand(name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for name, target := range c.links {
				if err := os.Symlink(expand(target), expand(name)); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"build", "--workspace-root=" + w}
			for _, a := range c.args {
				args = append(args, expand(a))
			}
			err := run(t.Context(), args, strings.NewReader(""), io.Discard, io.Discard)
			if err == nil || !strings.Contains(err.Error(), expand(c.want)) || exitCode(err) != c.code {
				t.Errorf("error is %v with code %d; want %q with %d", err, exitCode(err), expand(c.want), c.code)
			}
			log, _ := os.ReadFile(filepath.Join(w, ".gitpod", "bob.log"))
			if c.logs != strings.Contains(string(log), expand(c.want)) {
				t.Errorf("the log is %q", log)
			}
			if kept, err := os.ReadFile(filepath.Join(o, "file")); err != nil || string(kept) != "kept" {
				t.Errorf("a file outside became %q, %v", kept, err)
			}
		})
	}
}
