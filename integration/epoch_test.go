package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

// epochDockerfile makes what has a time, an order on the disk, an owner or a mode
// that could tell two machines apart.
const epochDockerfile = `FROM $REGISTRY/layers AS one
WORKDIR /made/deep
COPY . /context/
RUN i=0; while [ $i -lt 300 ]; do echo $i > f$i; i=$((i+1)); done; mkdir -p x/y/z && ln f1 x/first && ln -s f2 x/link && mkfifo x/pipe
RUN rm -r /data/old && mkdir /data/old && touch /data/old/again && chown 1000:50 f3 && chmod 6755 f4 && touch . && rm f5
RUN true
FROM $REGISTRY/layers
LABEL a=b c=d
USER alice
WORKDIR /home/alice/work
COPY --from=one --chown=alice /made /context /copied/
RUN umask > umask && cp umask other
`

// TestSameOnAnyMachine: with SOURCE_DATE_EPOCH every build of the same input has
// the same manifest, whoever runs it, wherever and whenever.
func TestSameOnAnyMachine(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	bob, err := lab.Bob()
	check(t, err)
	caches, err := lab.TempDir("caches") // not in b.dir, whose owner b.write sets
	check(t, err)
	names := []string{"a", "b/c", "b/d", "z"}
	digests := map[string]string{}
	build := func(name, umask string, prefix []string, cache string, flags ...string) {
		t.Helper()
		dir := filepath.Join(b.dir, "context")
		check(t, os.RemoveAll(dir))
		slices.Reverse(names)
		files := map[string]string{"context/Dockerfile": epochDockerfile}
		for _, n := range names {
			files["context/"+n] = n
		}
		b.write(files)
		for i, n := range names {
			later := time.Unix(1700000000+int64(len(digests)*100+i), 5)
			check(t, os.Chtimes(filepath.Join(dir, n), later, later))
		}
		env := []string{"SOURCE_DATE_EPOCH=1600000000", "BOB_CACHE_DIR=" + filepath.Join(caches, cache)}
		script := "umask " + umask + " && exec \"$@\""
		args := slices.Concat([]string{"build", "--progress=plain", "-o", "type=oci,dest=" + name + ".tar"}, flags, []string{"context"})
		if prefix == nil {
			result := b.run(harness.Invocation{Env: env[:1], Cache: filepath.Join(caches, cache), Args: args})
			if result.Code != 0 {
				t.Fatalf("%s: exit code %d\n%s", name, result.Code, result.Stderr)
			}
			digests[name] = strings.TrimSpace(result.Stdout)
			return
		}
		cmd := exec.CommandContext(t.Context(), "sh", slices.Concat([]string{"-c", script, "sh"}, prefix, []string{bob}, args)...)
		cmd.Dir = b.dir
		cmd.Env = append(env, "HOME="+b.dir, "PATH="+os.Getenv("PATH"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, stderr.String())
		}
		digests[name] = strings.TrimSpace(string(out))
	}
	build("cold", "", nil, "cache1")
	build("other-cache-one-job", "", nil, "cache2", "--jobs=1")
	build("warm", "", nil, "cache1")
	build("no-cache", "", nil, "cache1", "--no-cache", "--jobs=7")
	if os.Geteuid() == 0 {
		build("root", "077", []string{"env"}, "cache3")
		build("root-rootless", "002", []string{"env"}, "cache4", "--rootless")
	}
	want, err := os.ReadFile(filepath.Join(b.dir, "cold.tar"))
	check(t, err)
	for name, d := range digests {
		if d == "" || d != digests["cold"] {
			t.Errorf("%s: digest %q, the first build had %q", name, d, digests["cold"])
		}
		got, err := os.ReadFile(filepath.Join(b.dir, name+".tar"))
		check(t, err)
		if string(got) != string(want) {
			t.Errorf("%s: the archive has other bytes than the first build's", name)
		}
	}
}

// TestEpochClampsImage: no time in the image that the build made is later than the
// epoch; what came with the base keeps its own.
func TestEpochClampsImage(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch && rm /etc/shadow\nLABEL a=b\n",
	})
	epoch := time.Unix(1500000000, 0)
	b.build("--build-arg", "SOURCE_DATE_EPOCH=1500000000")
	image, err := lab.Pull(t.Context(), b.ref)
	check(t, err)
	base := baseLayers(image)
	for i, h := range image.Config.History {
		late := h.Created.After(epoch)
		if late != (i < base) { // the base is of 2023
			t.Errorf("history %d (%s) has the time %v", i, h.CreatedBy, h.Created)
		}
	}
	if !image.Config.Created.Equal(epoch) {
		t.Errorf("the image is of %v, want %v", image.Config.Created, epoch)
	}
	for _, e := range image.Layers[len(image.Layers)-1].Entries {
		if e.ModTime.After(epoch) {
			t.Errorf("%s has the time %v", e.Name, e.ModTime)
		}
	}
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	if e := tree["epoch"]; e == nil || e.Size != int64(len("1500000000\n")) {
		t.Errorf("/epoch is %+v", e)
	}
}
