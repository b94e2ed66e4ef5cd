package integration_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// FuzzLayers builds images from random file operations and checks that layers
// say what happened: before and after each RUN, the layers so far flatten to
// the root file system that the RUN itself saw.
func FuzzLayers(f *testing.F) {
	for seed := range uint64(8) {
		body := make([]byte, 600)
		random := rand.NewPCG(seed, 1)
		for i := 0; i < len(body); i += 8 {
			binary.LittleEndian.PutUint64(body[i:], random.Uint64())
		}
		f.Add(body)
	}
	// All that takes long is made first: an input has ten seconds.
	prepare := sync.OnceValue(func() error { return pushLive(context.Background()) })
	if _, err := lab.Bob(); err == nil {
		_ = prepare() // told to each input below
	}
	shared := sync.OnceValues(func() (string, error) { return lab.TempDir("layers-cache") })
	f.Fuzz(func(t *testing.T, body []byte) {
		t.Parallel()
		b := newWorkbench(t)
		check(t, prepare())
		cache, err := shared()
		check(t, err)
		p := newProgram(body)
		p.write(t, b)
		for {
			check(t, os.WriteFile(b.dir+"/Dockerfile", []byte(p.dockerfile()), 0o644))
			// Others use the cache too: what is in it is not left of this run.
			result, _, err := lab.Run(t.Context(), harness.Invocation{Dir: b.dir, Cache: cache, Args: []string{
				"build", "--progress=plain", "-o", "type=oci,tar=false,dest=" + b.dir + "/layout", "-f", "Dockerfile",
				"--build-arg", "REGISTRY=" + b.registry.Prefix, "context",
			}})
			check(t, err)
			if result.Code == 0 {
				break
			}
			// What can't be copied there is no step of the build.
			if !p.drop(result.Stderr) {
				t.Fatalf("exit code %d\n%s\n%s", result.Code, result.Stderr, p.dockerfile())
			}
		}
		for _, problem := range layersAgree(t, b.dir+"/layout") {
			t.Error(problem)
		}
		if t.Failed() {
			t.Log(p.dockerfile())
		}
		check(t, harness.RemoveAll(t.Context(), b.dir))
	})
}

// pushLive pushes the image live: that of "layers", and the program of that name.
func pushLive(ctx context.Context) error {
	root, err := harness.Module(ctx)
	if err != nil {
		return err
	}
	path := filepath.Join(lab.Dir, "live")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", path, "./integration/live")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build live: %w\n%s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	base, err := harness.Layers(ctx)
	if err != nil {
		return err
	}
	layer, err := harness.TarLayer([]harness.File{
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "sbin/", Mode: 0o755}},
		{Header: tar.Header{Name: "sbin/live", Mode: 0o755}, Body: string(program)},
	})
	if err != nil {
		return err
	}
	base.Layers = append(base.Layers, layer)
	registry, err := lab.Registry()
	if err != nil {
		return err
	}
	return registry.Push(ctx, registry.Prefix+"/live:latest", base)
}

// layersAgree compares each listing in the image with the layers below and
// including the one that brings it.
func layersAgree(t *testing.T, layout string) []string {
	t.Helper()
	image, err := harness.ReadLayout(layout)
	check(t, err)
	found := imageProblems(image)
	listings := 0
	for i, layer := range image.Layers {
		files, err := listingsIn(layout, layer)
		check(t, err)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			var entries []harness.Entry
			check(t, gob.NewDecoder(bytes.NewReader(files[name])).Decode(&entries))
			live, err := harness.Flatten([]harness.Layer{{Entries: entries}})
			check(t, err)
			below := image.Layers[:i]
			if strings.HasSuffix(name, ".after") {
				below = image.Layers[:i+1]
			}
			flat, err := harness.Flatten(below)
			check(t, err)
			for _, change := range treeChanges(flat, live) {
				found = append(found, fmt.Sprintf("layer %d, %s, from live to image: %s", i+1, name, change))
			}
			listings++
		}
	}
	if listings == 0 {
		found = append(found, "no listing in any layer")
	}
	return found
}

// treeChanges compares what an image holds with what was live, times included.
func treeChanges(flat, live harness.Tree) []string {
	for _, tree := range []harness.Tree{flat, live} {
		maps.DeleteFunc(tree, func(name string, _ *harness.Entry) bool { return aside.MatchString(name) })
	}
	changes := flat.Changes(live)
	for _, name := range slices.Sorted(maps.Keys(flat)) {
		other, ok := live[name]
		// /etc gets and loses the files that a RUN is given.
		if ok && name != "etc" && other.ModTime.Unix() != flat[name].ModTime.Unix() {
			changes = append(changes, fmt.Sprintf("C %q of %d, live %d", name, flat[name].ModTime.Unix(), other.ModTime.Unix()))
		}
	}
	return changes
}

// aside is what is mounted, is not changed by live, or is its own.
var aside = regexp.MustCompile(`^(dev|proc|sys|bin|sbin|usr|lists)(/|$)|^etc/(hosts|hostname|resolv\.conf)$`)

func listingsIn(layout string, layer harness.Layer) (map[string][]byte, error) {
	f, err := os.Open(filepath.Join(layout, "blobs", layer.Digest.Algorithm().String(), layer.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if name, ok := strings.CutPrefix(h.Name, "lists/"); ok && h.Typeflag == tar.TypeReg {
			if files[name], err = io.ReadAll(archive); err != nil {
				return nil, err
			}
		}
	}
}

// A program is a Dockerfile of random operations and its context, made of the
// bytes of a fuzz input, and nothing else.
type program struct {
	rest  []byte
	steps []string
	trees [][]string // of the context: operations as live takes them
}

func newProgram(body []byte) *program {
	p := &program{rest: body}
	for range 3 {
		p.trees = append(p.trees, p.tree())
	}
	p.steps = []string{"ARG REGISTRY", "FROM $REGISTRY/live AS first"}
	stages, runs := 1+p.pick(2), 0
	for stage := range stages {
		if stage > 0 {
			p.steps = append(p.steps, choose(p, []string{"FROM $REGISTRY/live", "FROM first"}))
		}
		for range 2 + p.pick(4) {
			if p.pick(3) == 0 {
				p.steps = append(p.steps, p.copySteps(stage)...)
			} else {
				p.steps = append(p.steps, p.runStep(runs))
				runs++
			}
		}
	}
	p.steps = append(p.steps, p.runStep(runs))
	return p
}

// pick returns a number below n; when the input is used up, 0.
func (p *program) pick(n int) int {
	if len(p.rest) == 0 {
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return int(b) % n
}

func choose(p *program, of []string) string { return of[p.pick(len(of))] }

func (p *program) dockerfile() string { return strings.Join(p.steps, "\n") + "\n" }

// drop removes the step that the error names, unless it is a RUN.
func (p *program) drop(stderr string) bool {
	match := regexp.MustCompile(`ERROR: Dockerfile:(\d+)`).FindStringSubmatch(stderr)
	if match == nil {
		return false
	}
	line, err := strconv.Atoi(match[1])
	if err != nil || line > len(p.steps) || !regexp.MustCompile("^(COPY|WORKDIR)").MatchString(p.steps[line-1]) {
		return false
	}
	p.steps = slices.Delete(p.steps, line-1, line)
	return true
}

// Names are few, so that operations meet, and the base image has some of them.
var (
	tops  = []string{"/w", "/data", "/data/old", "/w/a", "/home/alice", "/tmp"}
	bases = []string{"a", "b", "c", "old", "keep", "swap", "suid", "suid2", "gone", "dirlink", "fifo", "x"}
	modes = []string{"755", "700", "644", "4755", "2775", "1777", "000"}
)

func (p *program) path() string {
	path := choose(p, tops)
	for range p.pick(3) {
		path += "/" + choose(p, bases)
	}
	return path
}

func (p *program) operation() string {
	path := p.path()
	switch p.pick(19) {
	case 0, 1:
		return "mkdirs " + path + " " + choose(p, modes)
	case 2, 3:
		return fmt.Sprintf("write %s text%d", path, p.pick(4))
	case 4:
		return fmt.Sprintf("append %s more%d", path, p.pick(4))
	case 5:
		return fmt.Sprintf("sparse %s end%d", path, p.pick(4))
	case 6:
		return "chmod " + path + " " + choose(p, modes)
	case 7:
		return fmt.Sprintf("chown %s %d %d", path, p.pick(3)*1000, p.pick(2)*65534)
	case 8:
		return fmt.Sprintf("touch %s %d", path, 1500000000+p.pick(5))
	case 9, 10:
		return "rename " + path + " " + p.path()
	case 11:
		return "exchange " + path + " " + p.path()
	case 12, 13:
		return "remove " + path
	case 14:
		return "symlink " + path + " " + choose(p, []string{"a", "../b", "/data/old", "/w/a", "nowhere", "."})
	case 15:
		return "link " + path + " " + p.path()
	case 16:
		return "fifo " + path + " " + choose(p, modes)
	case 17:
		return fmt.Sprintf("xattr %s user.%s v%d", path, choose(p, []string{"a", "b"}), p.pick(3))
	}
	return choose(p, []string{"setcap ", "unxattr "}) + path + " user.a"
}

// runStep is some operations, or one of the sequences that chance rarely finds.
func (p *program) runStep(number int) string {
	args := []string{"live", fmt.Sprintf("/lists/%d", number)}
	for range 1 + p.pick(8) {
		path, other := p.path(), p.path()
		switch p.pick(8) {
		case 0: // a directory made again hides what it had
			args = append(args, "remove "+path, "mkdirs "+path+" 750", "write "+path+"/x again")
		case 1: // a directory gives way to a link and comes back
			args = append(args, "remove "+path, "symlink "+path+" /data", "remove "+path, "mkdirs "+path+" 755")
		case 2: // a renamed directory leaves room for another
			args = append(args, "rename "+path+" "+other, "mkdirs "+path+" 711")
		default:
			args = append(args, p.operation())
		}
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = strconv.Quote(a)
	}
	return "RUN [" + strings.Join(quoted, ",") + "]"
}

// copySteps is a COPY, or a WORKDIR and the way back: a RUN in a directory that
// has been removed would make it again before it begins.
func (p *program) copySteps(stage int) []string {
	if p.pick(4) == 0 {
		return []string{"WORKDIR " + p.path() + "/x", "WORKDIR /"}
	}
	source := fmt.Sprintf("t%d", p.pick(len(p.trees)))
	if stage > 0 && p.pick(2) == 0 {
		source = choose(p, []string{"--from=first /data", "--from=first /w", "--from=first /home"})
	}
	flags := choose(p, []string{"", "", "--chown=alice:50 ", "--chmod=750 "})
	return []string{"COPY " + flags + source + " " + p.path() + choose(p, []string{"", "/"})}
}

func (p *program) tree() []string {
	operations := []string{}
	for range p.pick(6) {
		path := choose(p, bases) + choose(p, []string{"", "/" + choose(p, bases)})
		operations = append(operations, choose(p, []string{"dir ", "file ", "link "})+path+" "+choose(p, modes[:4]))
	}
	return operations
}

// write makes the context's trees; what doesn't fit together is left out.
func (p *program) write(t *testing.T, b *workbench) {
	t.Helper()
	for i, operations := range p.trees {
		root := fmt.Sprintf("%s/context/t%d", b.dir, i)
		check(t, os.MkdirAll(root, 0o755))
		for _, o := range operations {
			words := strings.Fields(o)
			path := root + "/" + words[1]
			mode, err := strconv.ParseUint(words[2], 8, 12)
			check(t, err)
			if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
				continue
			}
			switch words[0] {
			case "dir":
				_ = os.Mkdir(path, 0o755)
			case "file":
				_ = os.WriteFile(path, []byte(o), os.FileMode(mode))
			case "link":
				_ = os.Symlink("a", path)
			}
		}
	}
	check(t, lab.User.Own(b.dir))
}
