package integration_test

import (
	"archive/tar"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

var traces = flag.String("traces", "", "have TestCounts keep what strace writes in this directory")

const (
	// countedFiles is how many files the workload files copies, and how many the base
	// has of the workload base.
	countedFiles = 2000
	// countedBytes is what the files hold together that the workload files copies.
	countedBytes = 4_157_509
)

// settling is longer than what a file must have been left alone for its digest to be
// remembered, which is 2 s.
const settling = 2200 * time.Millisecond

// A load is a build whose work is counted in several variants, one after another with
// one cache.
type load struct {
	name, steps string
	base        func(ctx context.Context, b *workbench) error // pushes the image base, if it isn't busybox
	files       int                                           // in the context
	variants    []variant
}

// A variant is what a build finds, and the most that it may do.
type variant struct {
	name   string
	change bool // of one file of the context
	most   harness.Counts
}

// TestCounts counts what builds do instead of timing them, so that each call too much
// is seen on a busy machine too. It fails as well for less than half of what is
// allowed, so that a gain is written down.
func TestCounts(t *testing.T) {
	t.Parallel()
	doctor := newWorkbench(t).bob("doctor", "--format=json")
	if mode, why := foundMode(doctor.Stdout); mode != "sandbox overlay" {
		t.Skipf("what is allowed is of builds with a sandbox and overlays, and this machine allows %s: %s", mode, why)
	}
	for _, l := range loads {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.count(newWorkbench(t))
		})
	}
}

// count builds the variants one after another.
func (l *load) count(b *workbench) {
	b.t.Helper()
	traffic := harness.NewTraffic(b.registry)
	defer traffic.Close()
	base := "busybox"
	if l.base != nil {
		base = "base"
		check(b.t, l.base(b.t.Context(), b))
	}
	b.write(certificates())
	b.write(smallFiles(l.files))
	b.write(map[string]string{
		"context/.dockerignore": "Dockerfile\n",
		"context/Dockerfile":    "FROM " + traffic.Prefix + "/" + base + "\n" + l.steps,
	})
	time.Sleep(settling)
	b.ref = traffic.Prefix + strings.TrimPrefix(b.ref, b.registry.Prefix)
	for _, v := range l.variants {
		if v.change {
			check(b.t, os.WriteFile(b.dir+"/context/d0/f0", []byte("changed\n"), 0o644))
		}
		v.compare(b.t, b.counted(l.name+"-"+v.name, traffic), traffic.Log())
	}
}

// counted builds, and returns what the build did.
func (b *workbench) counted(name string, traffic *harness.Traffic) harness.Counts {
	b.t.Helper()
	parent := b.dir
	if *traces != "" {
		var err error
		parent, err = filepath.Abs(*traces)
		check(b.t, err)
	}
	dir, err := os.MkdirTemp(parent, name+"-")
	check(b.t, err)
	trace, err := lab.NewTrace(b.t.Context(), dir)
	check(b.t, err)
	traffic.Reset()
	result := b.run(harness.Invocation{
		Args:  []string{"build", "--progress=plain", "-t", b.ref, "context"},
		Env:   []string{"SSL_CERT_DIR=" + b.dir + "/certificates", "SSL_CERT_FILE=" + b.dir + "/certificates/0.pem"},
		Trace: trace,
	})
	if result.Code != 0 {
		b.t.Fatalf("%s: exit code %d\n%s", name, result.Code, result.Stderr)
	}
	counts, err := trace.Counts()
	check(b.t, err)
	passed := traffic.Passed()
	counts[harness.Requests], counts[harness.Sent], counts[harness.Received] = passed.Requests, passed.Sent, passed.Received
	return counts
}

// compare fails the test for counts that are beyond what is allowed, or far below.
func (v *variant) compare(t *testing.T, counts harness.Counts, requests []string) {
	t.Helper()
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "kind\tmeasured\tallowed\t")
	wrong := false
	for kind, most := range v.most {
		verdict := ""
		switch n := counts[kind]; {
		case n > most:
			verdict = "too many"
		case 2*n < most:
			verdict = "less than half: lower what is allowed"
		}
		wrong = wrong || verdict != ""
		fmt.Fprintf(table, "%v\t%d\t%d\t %s\n", harness.Kind(kind), counts[kind], most, verdict)
	}
	check(t, table.Flush())
	if !wrong {
		return
	}
	t.Errorf("%s:\n%s\nrequests:\n  %s\n\nTo see the calls, keep them with -traces=DIRECTORY, "+
		"or trace a build as root: strace --follow-forks --summary-only --user=USER bob build …",
		v.name, text.String(), strings.Join(requests, "\n  "))
}

// certificates makes as many files as a machine has certificates of authorities.
func certificates() map[string]string {
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("certificates/%d.pem", i)] = strings.Repeat("not a certificate\n", 100)
	}
	return files
}

// smallFiles makes the contents of files, the same each time.
func smallFiles(n int) map[string]string {
	random := rand.New(rand.NewPCG(1, 2))
	files := map[string]string{}
	for i := range n {
		body := make([]byte, 64+random.IntN(4032))
		for j := range body {
			body[j] = byte('a' + random.IntN(26))
		}
		files[fmt.Sprintf("context/d%d/f%d", i/100, i%100)] = string(body)
	}
	return files
}

// pushManyFiles pushes base: busybox and a layer of many small files.
func pushManyFiles(ctx context.Context, b *workbench) error {
	image, err := harness.Busybox(ctx)
	if err != nil {
		return err
	}
	var files []harness.File
	for i := range countedFiles {
		if i%100 == 0 {
			files = append(files, harness.File{Header: tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("many/d%d/", i/100), Mode: 0o755}})
		}
		files = append(files, harness.File{
			Header: tar.Header{Name: fmt.Sprintf("many/d%d/f%d", i/100, i%100), Mode: 0o644},
			Body:   strings.Repeat(fmt.Sprintf("line of file %d\n", i), 60),
		})
	}
	layer, err := harness.TarLayer(files)
	if err != nil {
		return err
	}
	image.Layers = append(image.Layers, layer)
	return b.registry.Push(ctx, b.registry.Prefix+"/base:latest", image)
}

// loads are the builds. They may start what they were seen to start, and do a tenth more
// of the rest, since some of it depends on how many processors there are. What grows with
// the number of files, or with their bytes, is told apart and has no slack.
var loads = []load{
	{
		name:  "five",
		steps: "RUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\nRUN echo 4 > /4\nRUN echo 5 > /5\n",
		variants: []variant{
			{name: "cold", most: harness.Counts{
				harness.Processes: 21, harness.Execs: 22, harness.Changes: 720, harness.Mounts: 540,
				harness.Opens: 3200, harness.Stats: 5400, harness.Attributes: 1200,
				harness.Transfers: 340, harness.Read: 110_000, harness.Written: 8_000_000,
				harness.Requests: 22, harness.Sent: 4200, harness.Received: 1_300_000,
			}},
			{name: "unchanged", most: harness.Counts{
				harness.Processes: 4, harness.Execs: 6, harness.Changes: 12, harness.Mounts: 7,
				harness.Opens: 250, harness.Stats: 300, harness.Attributes: 42,
				harness.Transfers: 170, harness.Read: 86_000,
				harness.Requests: 6, harness.Sent: 1600, harness.Received: 2100,
			}},
		},
	},
	{
		name:  "files",
		steps: "COPY . /files/\nRUN echo done > /done\n",
		files: countedFiles,
		variants: []variant{
			{name: "cold", most: harness.Counts{
				harness.Processes: 9, harness.Execs: 10, harness.Changes: 540, harness.Mounts: 140,
				harness.Opens: 4*countedFiles + 1100, harness.Stats: 9*countedFiles + 2500, harness.Attributes: 8*countedFiles + 1200,
				harness.Transfers: 4*countedFiles + 220, harness.Read: 3*countedBytes + 82_000, harness.Written: countedBytes + 12_000_000,
				harness.Requests: 17, harness.Sent: 3_000_000, harness.Received: 1_300_000,
			}},
			{name: "unchanged", most: harness.Counts{
				harness.Processes: 4, harness.Execs: 6, harness.Changes: 12, harness.Mounts: 7,
				harness.Opens: 280, harness.Stats: countedFiles + 320, harness.Attributes: 52,
				harness.Transfers: 150, harness.Read: 250_000,
				harness.Requests: 6, harness.Sent: 950, harness.Received: 1400,
			}},
			{name: "changed", change: true, most: harness.Counts{
				harness.Processes: 9, harness.Execs: 10, harness.Changes: 130, harness.Mounts: 140,
				harness.Opens: 3*countedFiles + 960, harness.Stats: 6*countedFiles + 1200, harness.Attributes: 7*countedFiles + 230,
				harness.Transfers: 3*countedFiles + 210, harness.Read: 2*countedBytes + 5_800_000, harness.Written: countedBytes + 8_800_000,
				harness.Requests: 13, harness.Sent: 3_000_000, harness.Received: 1400,
			}},
		},
	},
	{
		name:  "base",
		steps: "COPY d0/f0 /file\nRUN cp /file /copied\n",
		base:  pushManyFiles, files: 1,
		variants: []variant{
			{name: "cold", most: harness.Counts{
				harness.Processes: 9, harness.Execs: 10, harness.Changes: 540, harness.Mounts: 140,
				harness.Opens: countedFiles + 1100, harness.Stats: countedFiles + 2400, harness.Attributes: 2*countedFiles + 1200,
				harness.Transfers: countedFiles + 220, harness.Read: 100_000, harness.Written: 11_000_000,
				harness.Requests: 19, harness.Sent: 6900, harness.Received: 1_400_000,
			}},
			{name: "unchanged", most: harness.Counts{
				harness.Processes: 4, harness.Execs: 6, harness.Changes: 12, harness.Mounts: 7,
				harness.Opens: 240, harness.Stats: 300, harness.Attributes: 30,
				harness.Transfers: 150, harness.Read: 81_000,
				harness.Requests: 6, harness.Sent: 1200, harness.Received: 1800,
			}},
		},
	},
}
