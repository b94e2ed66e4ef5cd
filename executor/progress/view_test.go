package progress_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/progress"
)

func TestParseMode(t *testing.T) {
	t.Parallel()
	for _, m := range []progress.Mode{progress.Auto, progress.Plain, progress.TTY, progress.Quiet, progress.RawJSON} {
		if got, err := progress.ParseMode(m.String()); got != m || err != nil {
			t.Errorf("ParseMode(%v) = %v, %v", m, got, err)
		}
	}
	if got, err := progress.ParseMode(""); got != progress.Auto || err != nil {
		t.Errorf(`ParseMode("") = %v, %v`, got, err)
	}
	_, err := progress.ParseMode("fancy")
	const want = `progress mode "fancy" is unknown: choose auto, plain, tty, quiet or rawjson`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	if _, err := progress.New(progress.TTY, io.Discard, progress.Options{}); err == nil {
		t.Error("tty without a terminal: no error")
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	if _, err := progress.New(progress.TTY, null, progress.Options{}); err == nil {
		t.Error("tty on /dev/null: no error")
	}
	if _, err := progress.New(progress.Mode(99), io.Discard, progress.Options{}); err == nil {
		t.Error("mode 99: no error")
	}
}

func TestAutoWithoutTerminal(t *testing.T) {
	t.Parallel()
	want := show(t, progress.Plain, progress.Options{}, builds["failure"]...)
	if got := show(t, progress.Auto, progress.Options{Term: "xterm"}, builds["failure"]...); got != want {
		t.Errorf("got %q", got)
	}
}

func TestAfterClose(t *testing.T) {
	t.Parallel()
	for _, mode := range []progress.Mode{progress.Plain, progress.Quiet, progress.RawJSON} {
		var out bytes.Buffer
		v, err := progress.New(mode, &out, progress.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range builds["failure"] {
			v.Event(e)
		}
		for range 3 {
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		}
		n := out.Len()
		v.Event(start(9, 9, "late"))
		if err := v.Close(); err != nil || out.Len() != n {
			t.Errorf("%v: wrote after Close: %v", mode, err)
		}
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestWriteError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken pipe")
	for _, mode := range []progress.Mode{progress.Plain, progress.Quiet, progress.RawJSON} {
		v, err := progress.New(mode, brokenWriter{broken}, progress.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range builds["failure"] {
			v.Event(e)
		}
		for range 2 {
			if err := v.Close(); !errors.Is(err, broken) {
				t.Errorf("%v: got %v", mode, err)
			}
		}
	}
}

// TestStrangeEvents passes what no executor should emit.
func TestStrangeEvents(t *testing.T) {
	t.Parallel()
	for _, mode := range []progress.Mode{progress.Plain, progress.Quiet, progress.RawJSON} {
		show(t, mode, progress.Options{},
			event.Event{},
			event.Event{Kind: 99, Vertex: 1},
			log(1, 0, "no vertex\n"),
			done(1, -1),
			log(1, 5, "never started\n"),
			log(0.5, 5, "before that\n"),
			event.Event{Kind: event.Log, Vertex: 5, Stream: -7, Data: []byte("no time\n")},
			status(1, 5, "", -1, -1),
			status(1, 5, "", 1<<62, 1),
			done(1, 5), done(1, 5),
			start(2, 5, "again"),
			start(-1e6, 5, "before"),
			status(2, 5, "late", 1, 2),
			failed(2, 6, "canceled"))
	}
}

// TestSilence checks that what is held comes out without another event.
func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			mu  sync.Mutex
			out bytes.Buffer
		)
		v, err := progress.New(progress.Plain, writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return out.Write(p)
		}), progress.Options{})
		if err != nil {
			t.Fatal(err)
		}
		v.Event(start(0, 1, "[a 1/1] RUN one"))
		v.Event(start(0, 2, "[b 1/1] RUN two"))
		v.Event(log(0.1, 2, "here\n"))
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		got := out.String()
		mu.Unlock()
		const want = "#1 [a 1/1] RUN one\n#1 ...\n\n#2 [b 1/1] RUN two\n#2 0.100 here\n"
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestMuchIsNotHeld checks that a vertex that prints much doesn't wait for one
// that runs silently.
func TestMuchIsNotHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		v, err := progress.New(progress.Plain, &out, progress.Options{LogLimit: -1, LogRate: -1})
		if err != nil {
			t.Fatal(err)
		}
		v.Event(start(0, 1, "[a 1/1] RUN one"))
		v.Event(start(0, 2, "[b 1/1] RUN two"))
		const size = 1 << 20
		v.Event(log(0, 2, strings.Repeat(strings.Repeat("x", 63)+"\n", size/64)))
		if out.Len() < size {
			t.Errorf("only %d bytes written", out.Len())
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	for _, mode := range []progress.Mode{progress.Plain, progress.Quiet, progress.RawJSON} {
		synctest.Test(t, func(t *testing.T) {
			v, err := progress.New(mode, io.Discard, progress.Options{})
			if err != nil {
				t.Fatal(err)
			}
			hammer(v)
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// hammer passes events from many goroutines, some of them after a Close.
func hammer(v progress.View) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			v.Event(start(0, i+1, "[x] RUN x"))
			for j := range 100 {
				v.Event(log(float64(j)/10, i+1, "line\nand\rpart"))
				v.Event(status(float64(j)/10, i+1, "sha256:0123", int64(j), 100))
			}
			if i == 7 {
				_ = v.Close()
			}
			v.Event(failed(10, i+1, "exit code: 1"))
		})
	}
	wg.Wait()
}

// TestRawJSONShape reads what the rawjson view writes as a consumer would.
func TestRawJSONShape(t *testing.T) {
	t.Parallel()
	out := show(t, progress.RawJSON, progress.Options{}, builds["success"]...)
	names := make(map[string]string)
	var text string
	for l := range strings.Lines(out) {
		var s struct {
			Vertexes []struct {
				Digest, Name       string
				Started, Completed *time.Time
			}
			Logs []struct {
				Vertex string
				Data   []byte
			}
			Statuses []struct{ ID, Vertex string }
			Warnings []struct{ Short []byte }
		}
		d := json.NewDecoder(strings.NewReader(l))
		if err := d.Decode(&s); err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		for _, v := range s.Vertexes {
			names[v.Digest] = v.Name
		}
		for _, e := range s.Logs {
			if names[e.Vertex] == "" {
				t.Errorf("log of unknown vertex: %s", l)
			}
			text += string(e.Data)
		}
		for _, e := range s.Statuses {
			if names[e.Vertex] == "" {
				t.Errorf("status of unknown vertex: %s", l)
			}
		}
	}
	if len(names) != 4 {
		t.Errorf("got %d vertexes, want 4", len(names))
	}
	const want = "compiling main.c\nlinking\nmain.c:1: warning: unused\n\nall done, no newline"
	if text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}
