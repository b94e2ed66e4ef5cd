package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"github.com/rogpeppe/go-internal/testscript"
)

// scriptState is the key of a script's last result in testscript's values.
type scriptState struct{}

// A lastRun is what the commands of a script know of the run before.
type lastRun struct {
	result harness.Result
	site   *harness.Site
}

// TestScripts runs the stories in testdata/script. Beside the commands of
// testscript (exec, stdout, stderr, grep, cmp, exists, …) they have:
//
//	[!] bob [NAME=VALUE…] [<FILE] ARGS…
//	        runs bob as the unprivileged user, with the file as standard input;
//	        "!" wants it to fail. Whatever outlives it fails the script.
//	code N…        wants one of these exit codes of the last bob
//	[!] pushed REF wants the tag in the registry
//	pull REF       pulls by skopeo: config.json, files.txt (what differs from
//	               the base image) and layers.txt appear in the directory
//	oneline        wants a single line on standard error of the last bob
//	user CMD…      runs another program as the unprivileged user
//	served N STATUS PATH
//	               wants $WEB to have answered N requests for the path so
//	[exec:PROGRAM] a condition of testscript, for what may not be installed
//
// [root] holds where the tests run as root.
//
// $REGISTRY is where to push and pull, $GUARDED wants credentials, $NOBODY is a
// port where nothing listens, $WEB serves the directory www as a [harness.Site];
// @REGISTRY@, @GUARDED@, @NOBODY@ and @WEB@ say so in files. What runs git makes
// the same commits everywhere.
func TestScripts(t *testing.T) {
	t.Parallel()
	newWorkbench(t) // skips here where none can work
	root, err := lab.TempDir("script")
	check(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", WorkdirRoot: root, UpdateScripts: *update, RequireUniqueNames: true,
		Setup: setupScript,
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition is called %s", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"bob": scriptBob, "code": scriptCode, "pushed": scriptPushed, "pull": scriptPull,
			"oneline": scriptOneline, "user": scriptUser, "served": scriptServed,
		},
	})
}

func setupScript(env *testscript.Env) error {
	r, err := lab.Registry()
	if err != nil {
		return err
	}
	guarded, err := lab.Guarded()
	if err != nil {
		return err
	}
	for _, image := range []string{"busybox", "layers"} {
		if _, err := lab.Image(context.Background(), image); err != nil {
			return err
		}
	}
	site := harness.Serve(filepath.Join(env.WorkDir, "www"))
	env.Defer(site.Close)
	env.Values[scriptState{}] = &lastRun{site: site}
	prefix := r.Prefix + "/" + strings.ToLower(filepath.Base(env.WorkDir))
	values := map[string]string{
		"REGISTRY": r.Prefix, "GUARDED": guarded.Prefix, "NOBODY": "127.0.0.1:9", "REF": prefix + ":1",
		"GUARDED_CONFIG": guarded.DockerConfig(), "GUARDED_HOST": guarded.Host, "REPO": prefix,
		"GUARDED_PASSWORD": harness.GuardedPassword, "WEB": site.URL,
	}
	for name, value := range values {
		env.Setenv(name, value)
	}
	for _, v := range append([]string{lab.NoAuth()}, harness.GitEnv...) {
		name, value, _ := strings.Cut(v, "=")
		env.Setenv(name, value)
	}
	err = filepath.WalkDir(env.WorkDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, value := range values {
			body = bytes.ReplaceAll(body, []byte("@"+name+"@"), []byte(value))
		}
		return os.WriteFile(path, body, 0o644)
	})
	if err != nil {
		return err
	}
	if err := os.Chmod(env.WorkDir, 0o755); err != nil {
		return err
	}
	return lab.User.Own(env.WorkDir)
}

func last(ts *testscript.TestScript) *lastRun {
	run, ok := ts.Value(scriptState{}).(*lastRun)
	if !ok {
		ts.Fatalf("the script has no state")
	}
	return run
}

func scriptBob(ts *testscript.TestScript, neg bool, args []string) {
	runInScript(ts, neg, harness.Invocation{Args: args})
}

func scriptUser(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: user CMD ARGS...")
	}
	runInScript(ts, neg, harness.Invocation{Program: args[0], Args: args[1:]})
}

var assignment = regexp.MustCompile(`^[A-Z_a-z]+=`)

func runInScript(ts *testscript.TestScript, neg bool, i harness.Invocation) {
	work := ts.Getenv("WORK")
	i.Dir, i.Home, i.Cache = ts.MkAbs("."), work+"/home", work+"/cache"
	for len(i.Args) > 0 {
		if assignment.MatchString(i.Args[0]) {
			i.Env = append(i.Env, i.Args[0])
		} else if file, ok := strings.CutPrefix(i.Args[0], "<"); ok {
			i.Stdin = strings.NewReader(ts.ReadFile(file))
		} else {
			break
		}
		i.Args = i.Args[1:]
	}
	result, left, err := lab.Run(context.Background(), i)
	ts.Check(err)
	last(ts).result = result
	copyTo(ts.Stdout(), result.Stdout)
	copyTo(ts.Stderr(), result.Stderr)
	if len(left) > 0 {
		ts.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
	if (result.Code != 0) != neg {
		ts.Fatalf("exit code %d\nstdout:\n%s\nstderr:\n%s", result.Code, result.Stdout, shorten(result.Stderr))
	}
	prints := slices.ContainsFunc(i.Args, func(a string) bool { return a == "--check" || a == "--call=check" || a == "doctor" })
	if neg && result.Stdout != "" && i.Program == "" && !prints {
		ts.Fatalf("a failure wrote to stdout: %q", shorten(result.Stdout))
	}
}

func copyTo(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

func shorten(text string) string {
	const most = 8000
	if len(text) > most {
		return text[:most/2] + "\n…\n" + text[len(text)-most/2:]
	}
	return text
}

func scriptCode(ts *testscript.TestScript, _ bool, args []string) {
	got := last(ts).result.Code
	for _, a := range args {
		if a == strconv.Itoa(got) {
			return
		}
	}
	ts.Fatalf("exit code %d, want %s\n%s", got, strings.Join(args, " or "), shorten(last(ts).result.Stderr))
}

func scriptOneline(ts *testscript.TestScript, _ bool, _ []string) {
	text := strings.TrimSpace(last(ts).result.Stderr)
	if text == "" || strings.Contains(text, "\n") {
		ts.Fatalf("stderr is not one line:\n%s", shorten(text))
	}
}

func scriptServed(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: served N STATUS PATH")
	}
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := strconv.Itoa(last(ts).site.Served(status, args[2])); got != args[0] {
		ts.Fatalf("%s was answered with %d %s times, want %s", args[2], status, got, args[0])
	}
}

func scriptPushed(ts *testscript.TestScript, neg bool, args []string) {
	r, err := lab.Registry()
	ts.Check(err)
	for _, ref := range args {
		found, err := r.Has(context.Background(), ref)
		ts.Check(err)
		if found == neg {
			ts.Fatalf("%s in the registry: %v", ref, found)
		}
	}
}

func scriptPull(ts *testscript.TestScript, _ bool, args []string) {
	image, err := lab.Pull(context.Background(), args[0])
	ts.Check(err)
	if problems := imageProblems(image); len(problems) > 0 {
		ts.Fatalf("%s: %s", args[0], strings.Join(problems, "\n"))
	}
	tree, err := harness.Flatten(image.Layers)
	ts.Check(err)
	n := baseLayers(image)
	base, err := harness.Flatten(image.Layers[:n])
	ts.Check(err)
	config, err := configText(image)
	ts.Check(err)
	for name, body := range map[string]string{
		"config.json": config, "files.txt": text(tree.Changes(base)), "layers.txt": layersText(image.Layers[n:]),
		"digest.txt": image.Digest.String() + "\n", "mediatype.txt": image.Manifest.MediaType + "\n",
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(body), 0o644))
	}
}
