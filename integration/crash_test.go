package integration_test

import (
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

var (
	kills    = flag.Int("kills", 5, "how often TestKilledAtAnyTime kills a build")
	killSeed = flag.Uint64("killseed", 0, "what the moments are drawn with; 0 is another one each time")
)

// crashing is a build that does a little of everything.
const crashing = `FROM $REGISTRY/layers AS made
ARG N
RUN --mount=type=cache,target=/c set -e; echo $N >> /c/log; seq 20000 > /made; mkdir /d; for i in $(seq 200); do echo $i > /d/$i; done
COPY tree /tree
RUN head -c 2000000 /dev/zero | tr '\0' x > /big && rm -r /d /data/old
FROM $REGISTRY/busybox
COPY --from=made /made /big /out/
COPY --from=made /tree /tree
RUN echo "counted" once && ls /tree | wc -l > /count
WORKDIR /w
`

// crashBench is a workbench with that build.
func crashBench(t *testing.T) *workbench {
	t.Helper()
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	files := map[string]string{"context/Dockerfile": crashing}
	for i := range 50 {
		files["context/tree/"+string(rune('a'+i%26))+strings.Repeat("x", i)] = strings.Repeat("line\n", i)
	}
	b.write(files)
	return b
}

// crashArgs are the arguments of the build number n, whose steps are always new.
func (b *workbench) crashArgs(n string) []string {
	return []string{
		"build", "--progress=plain", "-t", b.ref, "--build-arg=N=" + n, "--build-arg=SOURCE_DATE_EPOCH=1600000000",
		"--cache-from=type=local,src=kept", "--cache-to=type=local,dest=kept,mode=max,ignore-error=true", "context",
	}
}

// TestKilledAtAnyTime kills builds of one cache at random moments. What is built next
// is what an empty cache gives, and bob cache prune gets all the space back.
func TestKilledAtAnyTime(t *testing.T) {
	t.Parallel()
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-killseed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	b := crashBench(t)
	cold := b.run(harness.Invocation{Args: b.crashArgs("0"), Cache: filepath.Join(b.dir, "cold")})
	want := strings.TrimSpace(cold.Stdout)
	if cold.Code != 0 || want == "" {
		t.Fatalf("exit code %d\n%s", cold.Code, cold.Stderr)
	}
	ended := 0
	for i := range *kills {
		check(t, os.RemoveAll(filepath.Join(b.dir, "kept")))
		args := b.crashArgs("0")
		if i%2 == 0 {
			args = append(args[:len(args)-1], "--no-cache", "context")
		}
		r := b.start(harness.Invocation{Args: args})
		select { // how far the build is then is up to the machine: any moment will do
		case <-time.After(time.Duration(random.Int64N(int64(cold.Took)))):
			check(t, r.Signal(syscall.SIGKILL))
			<-r.ended
		case <-r.ended:
			ended++
		}
		r.wantNothingRunning(t)
		next := b.run(harness.Invocation{Args: b.crashArgs("0")})
		if got := strings.TrimSpace(next.Stdout); next.Code != 0 || got != want {
			t.Fatalf("kill %d: the next build has exit code %d and digest %s, want %s\n%s", i, next.Code, got, want, next.Stderr)
		}
		if i == 0 {
			pulled, err := lab.Pull(t.Context(), b.ref)
			check(t, err)
			tree, err := harness.Flatten(pulled.Layers)
			check(t, err)
			if e := tree["out/big"]; e == nil || e.Size != 2000000 {
				t.Errorf("/out/big is %v", e)
			}
		}
	}
	if ended == *kills {
		t.Error("every build was over before it was killed: nothing is tested here")
	}
	pruned := b.run(harness.Invocation{Args: []string{"cache", "prune"}})
	if pruned.Code != 0 {
		t.Errorf("bob cache prune: exit code %d\n%s", pruned.Code, pruned.Stderr)
	}
	b.wantSwept()
	var left int64
	var names []string
	check(t, filepath.WalkDir(filepath.Join(b.dir, "cache"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, errInfo := d.Info()
			if errInfo != nil {
				return errInfo
			}
			left += info.Size()
			names = append(names, path)
		}
		return err
	}))
	if left > 1<<16 {
		t.Errorf("bob cache prune leaves %d bytes: %s", left, strings.Join(names, "\n"))
	}
}

// TestEightBuilds runs eight builds of one cache at once, some of them the same, also
// while another process removes from the cache whatever it may.
func TestEightBuilds(t *testing.T) {
	t.Parallel()
	for name, prunes := range map[string]bool{"alone": false, "beside prune": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := crashBench(t)
			want := map[string]string{}
			for _, n := range []string{"0", "1"} {
				cold := b.run(harness.Invocation{Args: b.eightArgs(n, "cold"), Cache: filepath.Join(b.dir, "cold"+n)})
				if want[n] = strings.TrimSpace(cold.Stdout); cold.Code != 0 || want[n] == "" {
					t.Fatalf("exit code %d\n%s", cold.Code, cold.Stderr)
				}
			}
			var builds, pruning sync.WaitGroup
			done := make(chan struct{})
			if prunes {
				pruning.Go(func() { b.pruneUntil(done) })
			}
			var mu sync.Mutex
			made := 0
			for i := range 8 {
				builds.Go(func() {
					n := string(rune('0' + i%2))
					r := b.start(harness.Invocation{Args: b.eightArgs(n, string(rune('a'+i)))})
					<-r.ended
					if got := strings.TrimSpace(r.result.Stdout); r.result.Code != 0 || got != want[n] {
						t.Errorf("build %d: exit code %d, digest %s, want %s\n%s", i, r.result.Code, got, want[n], r.result.Stderr)
					}
					mu.Lock()
					defer mu.Unlock()
					made += strings.Count(r.result.Stderr, "counted once")
				})
			}
			builds.Wait()
			close(done)
			pruning.Wait()
			if !prunes && made != 1 {
				t.Errorf("a step of all builds was run %d times", made)
			}
			b.wantSwept()
		})
	}
}

// pruneUntil runs bob cache prune, again and again.
func (b *workbench) pruneUntil(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		r := b.start(harness.Invocation{Args: []string{"cache", "prune"}})
		if <-r.ended; r.result.Code != 0 {
			b.t.Errorf("bob cache prune: exit code %d\n%s", r.result.Code, r.result.Stderr)
		}
	}
}

// eightArgs are the arguments of one of the builds, which pushes to a tag of its own.
func (b *workbench) eightArgs(n, tag string) []string {
	return []string{
		"build", "--progress=plain", "-t", b.ref + "-" + tag, "--build-arg=N=" + n, "--build-arg=SOURCE_DATE_EPOCH=1600000000", "context",
	}
}
