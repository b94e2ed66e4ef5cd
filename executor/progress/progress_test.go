package progress_test

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/progress"
)

var update = flag.Bool("update", false, "write the golden files")

// epoch is when the builds of the tests begin.
var epoch = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// at returns the time so many seconds into a build.
func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

func start(t float64, vertex int, name string) event.Event {
	return event.Event{Time: at(t), Kind: event.Start, Vertex: vertex, Name: name}
}

func log(t float64, vertex int, data string) event.Event {
	return event.Event{Time: at(t), Kind: event.Log, Vertex: vertex, Stream: 1, Data: []byte(data)}
}

func errlog(t float64, vertex int, data string) event.Event {
	return event.Event{Time: at(t), Kind: event.Log, Vertex: vertex, Stream: 2, Data: []byte(data)}
}

func status(t float64, vertex int, id string, current, total int64) event.Event {
	return event.Event{
		Time: at(t), Kind: event.Status, Vertex: vertex, ID: id,
		Current: current, Total: total, Completed: total > 0 && current == total,
	}
}

func completed(t float64, vertex int, id string) event.Event {
	return event.Event{Time: at(t), Kind: event.Status, Vertex: vertex, ID: id, Completed: true}
}

func warning(t float64, vertex int, text string) event.Event {
	return event.Event{Time: at(t), Kind: event.Warning, Vertex: vertex, Name: text}
}

func done(t float64, vertex int) event.Event {
	return event.Event{Time: at(t), Kind: event.Done, Vertex: vertex}
}

func cached(t float64, vertex int) event.Event {
	return event.Event{Time: at(t), Kind: event.Done, Vertex: vertex, Cached: true}
}

func cacheUse(t float64, vertex int, hit bool, reason string) event.Event {
	return event.Event{Time: at(t), Kind: event.Cache, Vertex: vertex, Cached: hit, Name: reason}
}

func failed(t float64, vertex int, err string) event.Event {
	return event.Event{Time: at(t), Kind: event.Done, Vertex: vertex, Err: err}
}

const layer = "sha256:9ad63333ebc97e32b987ae66aa3cff81300e4c2e6d2f2395cef8a3ae18b249fe"

// builds are the streams that the golden files show.
var builds = map[string][]event.Event{
	"success": {
		start(0, 1, "[internal] load build definition from Dockerfile"),
		done(0.01, 1),
		start(0.02, 2, "[1/3] FROM docker.io/library/busybox:latest"),
		status(0.1, 2, layer, 0, 2_210_000),
		status(0.2, 2, layer, 100_000, 2_210_000), // too soon
		status(1.2, 2, layer, 1_210_000, 2_210_000),
		status(1.5, 2, layer, 2_210_000, 2_210_000),
		status(1.5, 2, "extracting "+layer, 0, 0),
		completed(1.75, 2, "extracting "+layer),
		done(1.8, 2),
		start(1.8, 3, "[2/3] COPY a b /dst/"),
		cached(1.8, 3),
		start(1.81, 4, "[3/3] RUN make"),
		log(1.933, 4, "compiling"),
		log(2, 4, " main.c\nlinking\n"),
		errlog(2.5, 4, "main.c:1: warning: unused\n"),
		log(13.9, 4, "\n"),
		log(122.3, 4, "all done, no newline"),
		done(123.4, 4),
		warning(123.5, 0, "build argument V is not used"),
		warning(123.5, 0, "nor is W"),
	},
	"failure": {
		start(0, 1, "[build 1/2] FROM docker.io/library/busybox:latest"),
		cached(0, 1),
		start(0.1, 2, "[build 2/2] RUN make"),
		start(0.1, 3, "[stage-1 2/2] RUN sleep 9"),
		log(0.2, 2, "cc -o main main.c\n"),
		errlog(0.3, 2, "main.c:1:1: error: no\n"),
		failed(0.4, 2, `process "/bin/sh -c make" did not complete successfully: exit code: 2`),
		failed(0.5, 3, "canceled"),
	},
	"interleaved": {
		start(0, 1, "[a 2/2] RUN one"),
		log(0.1, 1, "one 1\n"),
		start(0.2, 2, "[b 2/2] RUN two"), // waits
		log(0.3, 2, "two 1\n"),
		log(0.4, 1, "one 2\n"),
		start(0.5, 3, "[c 2/2] RUN three"),
		log(0.6, 3, "three 1\n"),
		warning(0.7, 3, "careful"),
		done(0.8, 3),
		log(2.5, 1, "one 3\n"), // the others have waited long enough
		log(2.6, 2, "two 2\n"), // 2 is current now
		log(2.7, 1, "one 4\n"),
		done(2.8, 2), // makes way for 1
		log(2.9, 1, "one 5\n"),
		done(3, 1),
		log(3.1, 1, "one, late\n"),
	},
	"explained": {
		start(0, 1, "[1/3] COPY a /"),
		cacheUse(0, 1, true, ""),
		cached(0, 1),
		start(0.1, 2, "[2/3] COPY src /src"),
		cacheUse(0.1, 2, false, "file src/a\x1b[31m.c changed"),
		done(0.2, 2),
		start(0.2, 3, "[3/3] RUN make"),
		cacheUse(0.2, 3, false, "step [2/3] COPY src /src changed"),
		log(0.3, 3, "made\n"),
		done(0.4, 3),
	},
	"overwritten": {
		start(0, 1, "[2/2] RUN curl -O http://example.com/"),
		errlog(0.1, 1, "  0%\r"),
		errlog(0.2, 1, " 10%\r 20%"),
		errlog(1.15, 1, "\r 80%\r 90%\r"),
		errlog(1.2, 1, "100%\r\n"),
		log(1.3, 1, "dos line\r\n"),
		log(1.4, 1, "dos line, cut\r"),
		log(1.5, 1, "\nerased\r      \rkept\n"),
		errlog(1.6, 1, "unfinished 1%\runfinished 2%\r"),
		done(1.7, 1),
	},
	"clipped": {
		start(0, 1, "[2/2] RUN yes"),
		log(0.1, 1, strings.Repeat("0123456789abcde\n", 3)), // fills the rate
		log(0.2, 1, "no\n"),
		log(1.1, 1, "second two\n"),
		log(1.2, 1, strings.Repeat("0123456789abcde\n", 3)),
		log(9.1, 1, "1\n"+strings.Repeat("x", 100)+"\n"),
		log(9.2, 1, "no\n"),
		failed(9.3, 1, "exit code: 1"),
	},
	"broken off": {
		start(0, 1, "[2/2] RUN sleep 9"),
		start(0, 2, "[3/3] RUN sleep 9"),
		log(0.1, 2, "half a line"),
		log(0.1, 1, "and another"),
	},
}

// show passes events through a view and returns what it writes. It runs in a
// bubble, where time stands still, so that nothing depends on speed.
func show(t *testing.T, mode progress.Mode, o progress.Options, events ...event.Event) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		v, err := progress.New(mode, &out, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			v.Event(e)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return out.String()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, events := range builds {
		for _, mode := range []progress.Mode{progress.Plain, progress.RawJSON, progress.Quiet} {
			file := strings.ReplaceAll(name, " ", "-") + "." + mode.String()
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				var o progress.Options
				if name == "clipped" {
					o = progress.Options{LogLimit: 150, LogRate: 50}
				}
				golden(t, file, show(t, mode, o, events...))
			})
		}
	}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", name), []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := fs.ReadFile(os.DirFS("testdata"), name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("output differs from testdata/%s\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}
