package integration_test

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/bobbuild/bob/integration/harness"
)

// TestMountsStayInside has the sources and targets of mounts, and working
// directories, lead out of the image, the context and a cache: nothing of the
// host is shown or changed. The file outside says "alive".
func TestMountsStayInside(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	out := b.canary()
	layer, err := harness.TarLayer(aim([]harness.File{
		entry(tar.TypeSymlink, "link", "/OUT", ""), entry(tar.TypeSymlink, "up", up+"OUT", ""),
		entry(tar.TypeSymlink, "root-link", "/", ""), entry(tar.TypeSymlink, "dots", "..", ""),
		entry(tar.TypeSymlink, "process", "/proc/1/root", ""), entry(tar.TypeSymlink, "descriptors", "/proc/self/fd", ""),
	}, out))
	check(t, err)
	b.pushBase("leads-out", layer)
	check(t, os.MkdirAll(filepath.Join(b.dir, "context"), 0o755))
	check(t, os.Symlink(out, filepath.Join(b.dir, "context/link")))
	check(t, os.Symlink("../out", filepath.Join(b.dir, "context/up")))
	base := "FROM $REGISTRY/leads-out-" + repositoryName(t) + " AS image\nFROM image\n"
	// What a command is shown at /m, and tries to change there.
	const look = " find /m /m/canary; cat /m /m/canary; echo changed > /m/canary; echo new > /m/new\n"
	// The root of the image is at /m.
	const own = " test -x /m/bin/busybox && test ! -e /m/canary\n"
	for name, test := range map[string]struct {
		steps string
		code  int
	}{
		"source above the stage":        {"RUN --mount=from=image,source=../../../OUT,target=/m,rw" + look, 1},
		"source a link":                 {"RUN --mount=from=image,source=/link,target=/m,rw" + look, 1},
		"source a relative link":        {"RUN --mount=from=image,source=/up,target=/m,rw" + look, 1},
		"source below a link":           {"RUN --mount=from=image,source=/link/canary,target=/m,rw" + look, 1},
		"source below a process":        {"RUN --mount=from=image,source=/process/OUT,target=/m,rw" + look, 1},
		"source a descriptor":           {"RUN --mount=from=image,source=/descriptors/3,target=/m,rw" + look, 1},
		"source a link to the root":     {"RUN --mount=from=image,source=/root-link,target=/m,rw" + own, 0},
		"source a link to dots":         {"RUN --mount=from=image,source=/dots/../dots,target=/m,rw" + own, 0},
		"source above the context":      {"RUN --mount=source=../out,target=/m,rw" + look, 1},
		"source a link of the context":  {"RUN --mount=source=link,target=/m,rw" + look, 1},
		"links in the context":          {"RUN --mount=target=/m,rw cat /m/link/canary /m/up/canary; echo x > /m/link/canary; echo x > /m/up/new; true\n", 0},
		"cache from a link":             {"RUN --mount=type=cache,from=image,source=/link,target=/m" + look, 1},
		"source a link in a cache":      {"RUN --mount=type=cache,id=1,target=/c ln -s /OUT /c/l\nRUN --mount=type=cache,id=1,source=/l,target=/m" + look, 1},
		"source a relative link there":  {"RUN --mount=type=cache,id=2,target=/c ln -s UPOUT /c/l\nRUN --mount=type=cache,id=2,source=/l/canary,target=/m" + look, 1},
		"source a process's root there": {"RUN --mount=type=cache,id=3,target=/c ln -s /proc/self/root /c/l\nRUN --mount=type=cache,id=3,source=/l/OUT,target=/m" + look, 1},
		"source above a cache":          {"RUN --mount=type=cache,id=4,source=../../../OUT,target=/m" + look, 1},
		"target a link":                 {"RUN --mount=type=tmpfs,target=/link echo x > /link/canary && test ! -e /up/new\n", 0},
		"target below a relative link":  {"RUN --mount=type=tmpfs,target=/up/new echo x > /up/new/x && test ! -e /link/canary\n", 0},
		"target above the root":         {"RUN --mount=type=tmpfs,target=/../../OUT/new echo x > /OUT/new/x && test ! -e /OUT/canary\n", 0},
		"target a link to the root":     {"RUN --mount=type=tmpfs,target=/root-link echo x > /OUT/new\n", 1},
		"target below a process":        {"RUN --mount=type=bind,from=image,target=/process/OUT,rw echo x > /process/OUT/new\n", 1},
		"target swapped for a link":     {"RUN --mount=from=image,source=/etc/passwd,target=/a/canary mv /a /z && ln -s /OUT /a\n", 0},
		"target a link in a cache":      {"RUN --mount=type=cache,id=5,target=/c ln -s /OUT /c/l\nRUN --mount=type=cache,id=5,target=/c --mount=type=tmpfs,target=/c/l/new echo x > /c/l/new/x && test ! -e /c/l/canary\n", 0},
		"target a relative link there":  {"RUN --mount=type=cache,id=6,target=/c ln -s UPOUT /c/l\nRUN --mount=type=cache,id=6,target=/c --mount=type=tmpfs,target=/c/l echo x > /c/l/canary\n", 0},
		"target a link in a stage":      {"RUN --mount=from=image,target=/m,rw --mount=type=tmpfs,target=/m/link echo x > /m/link/canary\n", 0},
		"target in proc":                {"RUN --mount=type=tmpfs,target=/proc/sys true\n", 1},
		"target proc":                   {"RUN --mount=type=tmpfs,target=/proc true\n", 1},
		"target in dev":                 {"RUN --mount=type=tmpfs,target=/dev/new echo x > /dev/new/x && test -c /dev/null\n", 0},
		"target a device":               {"RUN --mount=type=bind,from=image,source=/etc/passwd,target=/dev/null,rw echo x > /dev/null\n", 1},
		"working directory a process's": {"WORKDIR /proc/1/cwd\nRUN cat " + up + "OUT/canary; true\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := &workbench{t: t, dir: b.dir, registry: b.registry, ref: b.registry.Prefix + "/inside-" + strings.Map(repository, name) + ":1"}
			steps := strings.NewReplacer("UPOUT", up+strings.TrimPrefix(out, "/"), up+"OUT", up+strings.TrimPrefix(out, "/"), "../OUT", ".."+out, "/OUT", out).Replace(test.steps)
			b.write(map[string]string{"Dockerfile": base + steps})
			result := b.bob("build", "--progress=plain", "-t", b.ref, "-f", "Dockerfile", "context")
			if result.Code != test.code {
				t.Errorf("exit code %d, want %d\n%s", result.Code, test.code, result.Stderr)
			}
			if test.code == 1 && strings.Contains(name, "source") && !matches("not found", result.Stderr) {
				t.Errorf("what is missing is not named\n%s", result.Stderr)
			}
			if strings.Contains(result.Stderr, "alive") {
				t.Errorf("the command saw the host's file\n%s", result.Stderr)
			}
			if result.Code == 1 && !matches(`Dockerfile:\d+`, result.Stderr) {
				t.Errorf("no line of the Dockerfile is named:\n%s", result.Stderr)
			}
			b.wantCanary(out)
		})
	}
}

// A meeting is a server that a command waits at until the test lets it go.
type meeting struct {
	wait    string        // the command that waits
	arrived chan struct{} // closed when it does
	let     chan struct{} // to be closed by the test
}

func newMeeting(t *testing.T) *meeting {
	t.Helper()
	m := &meeting{arrived: make(chan struct{}), let: make(chan struct{})}
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(m.arrived) })
		select {
		case <-m.let:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	m.wait = "wget -q -O /dev/null " + server.URL
	return m
}

// A running is a build beside the test.
type running struct {
	*harness.Running
	ended  chan struct{}
	result harness.Result // once it has ended
}

// start starts bob in the workbench's directory.
func (b *workbench) start(i harness.Invocation) *running {
	b.t.Helper()
	i.Dir = b.dir
	r, err := lab.Start(b.t.Context(), i)
	check(b.t, err)
	started := &running{Running: r, ended: make(chan struct{})}
	go func() {
		defer close(started.ended)
		var err error
		if started.result, err = r.Wait(); err != nil {
			b.t.Error(err)
		}
	}()
	return started
}

// startBuild starts a build of the Dockerfile, every step of it; stderr gets what it
// says, if it isn't nil.
func (b *workbench) startBuild(dockerfile string, stderr io.Writer, args ...string) *running {
	b.t.Helper()
	args = append([]string{"build", "--progress=plain", "--no-cache", "-f", dockerfile}, args...)
	return b.start(harness.Invocation{Args: append(args, "context"), Stderr: stderr})
}

// until waits for the channel, and fails the test if the build ends before.
func (r *running) until(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-r.ended:
		select {
		case <-c:
		default:
			t.Fatalf("bob ended: exit code %d\n%s", r.result.Code, r.result.Stderr)
		}
	}
}

// succeeded waits for the end and returns what bob said on standard error.
func (r *running) succeeded(t *testing.T) string {
	t.Helper()
	<-r.ended
	if r.result.Code != 0 {
		t.Fatalf("exit code %d\n%s", r.result.Code, r.result.Stderr)
	}
	r.wantNothingRunning(t)
	return r.result.Stderr
}

// wantNothingRunning fails the test if something outlived the build. What is left in
// the cache may be another build's, or garbage.
func (r *running) wantNothingRunning(t *testing.T) {
	t.Helper()
	for _, left := range r.Leftovers() {
		if !strings.HasPrefix(left, "file: ") {
			t.Error("left", left)
		}
	}
}

// TestCacheMountsOfTwoBuilds has two processes use a cache mount at once.
func TestCacheMountsOfTwoBuilds(t *testing.T) {
	t.Parallel()
	const head = "FROM $REGISTRY/busybox\nRUN --mount=type=cache,target=/c,sharing="
	t.Run("shared", func(t *testing.T) {
		t.Parallel()
		b := newWorkbench(t)
		// Each ends only when it has seen the other's file.
		b.write(map[string]string{
			"one": head + "shared touch /c/one && until test -e /c/two; do sleep 0.05; done\n",
			"two": head + "shared touch /c/two && until test -e /c/one; do sleep 0.05; done\n", "context/": "",
		})
		one, two := b.startBuild("one", nil), b.startBuild("two", nil)
		one.succeeded(t)
		two.succeeded(t)
	})
	t.Run("private", func(t *testing.T) {
		t.Parallel()
		b, m := newWorkbench(t), newMeeting(t)
		b.write(map[string]string{
			"one":   head + "private touch /c/one && " + m.wait + " && echo first has $(ls /c)\n",
			"two":   head + "private echo second finds $(ls /c | wc -l) && touch /c/two && echo second has $(ls /c)\n",
			"three": head + "private echo third finds $(ls /c)\n", "context/": "",
		})
		one := b.startBuild("one", nil)
		one.until(t, m.arrived)
		text := b.startBuild("two", nil).succeeded(t)
		if !strings.Contains(text, "second finds 0\n") || !strings.Contains(text, "second has two\n") {
			t.Errorf("the second build shares what the first one uses\n%s", text)
		}
		close(m.let)
		if text := one.succeeded(t); !strings.Contains(text, "first has one\n") {
			t.Errorf("the first build shares its cache\n%s", text)
		}
		// Both are free again, and neither is lost.
		if text := b.startBuild("three", nil).succeeded(t); !matches("third finds (one|two)\n", text) {
			t.Errorf("no cache is used again\n%s", text)
		}
	})
	t.Run("locked", func(t *testing.T) {
		t.Parallel()
		b, m := newWorkbench(t), newMeeting(t)
		b.write(map[string]string{
			"one": head + "locked echo one begins >> /c/log && " + m.wait + " && echo one ends >> /c/log\n",
			"two": head + "locked echo two begins >> /c/log && echo $(cat /c/log)\n", "context/": "",
		})
		one := b.startBuild("one", nil)
		one.until(t, m.arrived)
		waits := watchFor("waiting for the cache mount on /c")
		two := b.startBuild("two", waits)
		two.until(t, waits.done)
		close(m.let)
		one.succeeded(t)
		if text := two.succeeded(t); !strings.Contains(text, "one begins one ends two begins\n") {
			t.Errorf("the second build did not wait for the first one\n%s", text)
		}
	})
	t.Run("locked by a killed build", func(t *testing.T) {
		t.Parallel()
		b, m := newWorkbench(t), newMeeting(t)
		b.write(map[string]string{
			"one": head + "locked echo one begins >> /c/log && " + m.wait + "\n",
			"two": head + "locked echo two begins >> /c/log && echo $(cat /c/log)\n", "context/": "",
		})
		one := b.startBuild("one", nil)
		one.until(t, m.arrived)
		waits := watchFor("waiting for the cache mount on /c")
		two := b.startBuild("two", waits)
		two.until(t, waits.done)
		check(t, one.Signal(syscall.SIGKILL))
		<-one.ended
		if text := two.succeeded(t); !strings.Contains(text, "one begins two begins\n") {
			t.Errorf("the cache is another one\n%s", text)
		}
	})
}

// TestCacheSourceSwapped has one command exchange what a mount's source leads to,
// in a cache that another one mounts meanwhile: always a directory of the cache is
// shown, never that of the host at the same path.
func TestCacheSourceSwapped(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	out := b.canary()
	const cache, swaps = "--mount=type=cache,id=swapped,", 8
	mounts := strings.Repeat("RUN "+cache+"target=/c "+cache+"source=/d,target=/m,ro cat /m/canary && test ! -e /c/stopped\n", swaps)
	b.write(map[string]string{"context/": "", "Dockerfile": strings.ReplaceAll("FROM $REGISTRY/busybox AS base\n"+
		"RUN "+cache+"target=/c mkdir -p /c/real /cOUT && echo inside > /c/real/canary && cp /c/real/canary /cOUT && ln -s real /c/d\n"+
		"FROM base AS swaps\n"+
		"RUN "+cache+"target=/c touch /c/swapping && until test -e /c/stop; do "+
		"ln -sfn OUT /c/new; mv -T /c/new /c/d; ln -sfn ../../../../../../../../../../..OUT /c/new; mv -T /c/new /c/d; "+
		"ln -sfn real /c/new; mv -T /c/new /c/d; done; touch /c/stopped\n"+
		"FROM base AS mounts\n"+
		"RUN "+cache+"target=/c until test -e /c/swapping; do sleep 0.05; done\n"+mounts+
		"RUN "+cache+"target=/c touch /c/stop /done\n"+
		"FROM base\nCOPY --from=mounts /done /\nRUN --mount=from=swaps,target=/s true\n", "OUT", out)})
	text := b.startBuild("Dockerfile", nil, "--jobs=2").succeeded(t)
	if n := strings.Count(text, " inside\n"); n != swaps || strings.Contains(text, "alive") {
		t.Errorf("%d mounts showed the cache, want %d\n%s", n, swaps, text)
	}
	b.wantCanary(out)
}

// TestSecretRemovedDuringBuild: a secret is read for each command that uses it, and
// one whose file has gone by then ends the build and names it.
func TestSecretRemovedDuringBuild(t *testing.T) {
	t.Parallel()
	b, m := newWorkbench(t), newMeeting(t)
	b.write(map[string]string{
		"context/": "", "token": "s3cret\n",
		"Dockerfile": "FROM $REGISTRY/busybox\nRUN --mount=type=secret,id=token test -s /run/secrets/token && " + m.wait +
			" && test -s /run/secrets/token\nRUN --mount=type=secret,id=token cat /run/secrets/token\n",
	})
	r := b.startBuild("Dockerfile", nil, "-t", b.ref, "--secret=id=token,src=token")
	r.until(t, m.arrived)
	check(t, os.Remove(filepath.Join(b.dir, "token")))
	close(m.let)
	<-r.ended
	if r.result.Code != 1 || !matches(`Dockerfile:3: .*secret token: .*no such file`, r.result.Stderr) {
		t.Errorf("exit code %d\n%s", r.result.Code, r.result.Stderr)
	}
	b.wantAbsent()
}

// TestKilledWithSecrets kills bob, which can't clean up, while a command has
// secrets: their bytes are nowhere on a disk, the command is gone, and the next
// build sweeps what else is left.
func TestKilledWithSecrets(t *testing.T) {
	t.Parallel()
	b, m := newWorkbench(t), newMeeting(t)
	secret := "secret " + rand.Text()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	check(t, err)
	private := string(pem.EncodeToMemory(block))
	b.write(map[string]string{
		"context/": "", "tmp/": "", "given/file": secret + "\n", "given/key": private,
		"Dockerfile": "FROM $REGISTRY/busybox\n" +
			"RUN --mount=type=secret,id=file,mode=0444 --mount=type=secret,id=file,target=/root/deep/key --mount=type=secret,id=variable,env=TOKEN " +
			"--mount=type=secret,id=variable --mount=type=ssh --mount=type=cache,target=/c --mount=target=/ctx,rw --mount=type=tmpfs,target=/scratch " +
			`test -S "$SSH_AUTH_SOCK" && test "$TOKEN" = "$(cat /run/secrets/variable)" && cp /run/secrets/file /scratch/file && ` +
			"(setsid sleep 3000 &) && " + m.wait + "\n",
		"after": "FROM $REGISTRY/busybox\nRUN --mount=type=cache,target=/c true\n",
	})
	args := []string{"build", "--progress=plain", "-t", b.ref, "--secret=id=file,src=given/file", "--secret=id=variable,env=SECRET", "--ssh=default=given/key"}
	env := []string{"SECRET=" + secret, "TMPDIR=" + filepath.Join(b.dir, "tmp")}
	r := b.start(harness.Invocation{Args: append(args, "context", "-f", "Dockerfile"), Env: env})
	r.until(t, m.arrived)
	hidden := []string{secret, string(key.Seed()), strings.Split(private, "\n")[2]}
	b.wantNowhere("while the command runs", hidden...)
	check(t, r.Signal(syscall.SIGKILL))
	<-r.ended
	r.wantNothingRunning(t)
	b.wantNowhere("after the end", hidden...)
	b.wantAbsent()
	b.start(harness.Invocation{Args: []string{"build", "--progress=plain", "-f", "after", "context"}, Env: env}).succeeded(t)
	b.wantNowhere("after the next build", hidden...)
	b.wantSwept()
}

// wantSwept fails the test if something is left in the cache that no later build
// uses, or in the directory tmp.
func (b *workbench) wantSwept() {
	b.t.Helper()
	for _, pattern := range []string{"cache/tmp/[^.]*", "cache/ids/*/active/[^.]*", "cache/ids/*/garbage/*", "tmp/*"} {
		left, err := filepath.Glob(filepath.Join(b.dir, pattern))
		check(b.t, err)
		for _, name := range left {
			b.t.Errorf("left %s", name)
		}
	}
}

// wantNowhere fails the test if one of the texts is in a file below the
// workbench's directory, other than in the directory of what was given.
func (b *workbench) wantNowhere(when string, texts ...string) {
	b.t.Helper()
	seen := map[uint64]bool{} // by inode: busybox has hundreds of names
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // of the running build
		case err != nil:
			return err
		case path == filepath.Join(b.dir, "given"):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		content, err := readOnce(path, seen)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				b.t.Errorf("%s: a secret is in %s", when, path)
			}
		}
		return err
	})
	check(b.t, err)
	if len(seen) == 0 {
		b.t.Errorf("%s: no file was looked at", when)
	}
}

// readOnce reads a file, unless it has seen its inode.
func readOnce(path string, seen map[uint64]bool) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || seen[stat.Ino] {
		return nil, nil
	}
	seen[stat.Ino] = true
	return os.ReadFile(path)
}

// TestRunSeesNothingOfBob starts bob as a careless program would, with descriptors,
// variables and dispositions of its own: a command gets none of them.
func TestRunSeesNothingOfBob(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	out := b.canary()
	bob, err := lab.Bob()
	check(t, err)
	b.write(map[string]string{"context/f": "f\n", "Dockerfile": "FROM $REGISTRY/busybox\n" +
		"RUN echo variables $(env | cut -d= -f1 | sort) && echo descriptors $(ls /proc/self/fd)\n" + // 3 is the directory
		"RUN echo $(grep SigIgn /proc/self/status) && echo session $(cut -d' ' -f5-7 /proc/1/stat)\n" +
		"RUN echo limits $(ulimit -Sn) $(cat /proc/self/oom_score_adj)\n" +
		"RUN umask && mkdir /d && touch /f && echo modes $(stat -c %a /d /f)\n" +
		"WORKDIR /w\nCOPY f /copied/f\nRUN echo made $(stat -c %a /w /copied /copied/f)\n" +
		"RUN echo others $(cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c CREDENTIAL)\n" +
		"RUN for root in '' /proc/[0-9]*/root /proc/[0-9]*/cwd/..; do for name in " + b.dir + " " + out + " " + bob + "; do " +
		"test ! -e $root$name || echo way $root$name; done; done; echo no other way\n"})
	result := b.run(harness.Invocation{
		Program: "sh", Args: []string{
			"-c", `umask 077; ulimit -Sn 321; echo 200 > /proc/self/oom_score_adj; trap "" HUP INT PIPE USR1 TERM; exec 5< ` +
				out + "/canary 7< " + out + ` 9>&1; exec "$@"`, "sh",
			bob, "build", "--progress=plain", "-f", "Dockerfile", "context",
		},
		Env: []string{
			"CREDENTIAL=x", "BOB_BUILD_ARG=CREDENTIAL=x", "BOB_SECRET=id=a,env=CREDENTIAL", "SSH_AUTH_SOCK=" + b.dir + "/agent",
			"AWS_SECRET_ACCESS_KEY=x", "NOTIFY_SOCKET=/run/notify", "LISTEN_FDS=2", "LISTEN_PID=1", "_LIBCONTAINER_LOGLEVEL=4",
		},
	})
	if result.Code != 0 {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	for _, want := range []string{
		"variables HOME PATH PWD SHLVL", "descriptors 0 1 2 3", "session 1 1 0",
		"limits 321 200", "0022", "modes 755 644", "made 755 755 644", "others 0", "no other way",
	} {
		if !strings.Contains(result.Stderr, " "+want+"\n") {
			t.Errorf("there is no line %q\n%s", want, result.Stderr)
		}
	}
	// 32 to 34 are the C library's and pass through Go's runtime as they are.
	if !matches(` SigIgn: 0{7}[0-3][08]0{7}\n`, result.Stderr) {
		t.Errorf("signals are ignored\n%s", result.Stderr)
	}
	if strings.Contains(result.Stderr, " way /") {
		t.Errorf("a path of the host can be reached\n%s", result.Stderr)
	}
}
