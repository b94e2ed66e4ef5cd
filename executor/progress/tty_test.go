package progress_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/bobbuild/bob/executor/progress"
)

var sgr = regexp.MustCompile("\x1b\\[[0-9;]*m")

func withoutColor(s string) string { return sgr.ReplaceAllString(s, "") }

// bigBuild is a screen with something of everything in it.
func bigBuild(o progress.Options) progress.Screen {
	o.Now = func() time.Time { return at(12.34) }
	s := progress.NewScreen(o)
	s.Event(start(0, 1, "[internal] load build definition from Dockerfile"))
	s.Event(done(0.1, 1))
	s.Event(start(0.1, 2, "[build 1/4] FROM docker.io/library/golang:1.26"))
	s.Event(done(3.3, 2))
	s.Event(start(3.3, 3, "[build 2/4] WORKDIR /src"))
	s.Event(cached(3.3, 3))
	s.Event(start(3.3, 4, "[stage-1 1/3] FROM docker.io/library/debian:bookworm"))
	s.Event(status(3.4, 4, "sha256:0123456789ab", 1_200_000, 3_400_000))
	s.Event(status(3.4, 4, "sha256:456789abcdef", 7_000_000, 7_000_000))
	s.Event(start(3.5, 5, "[build 3/4] RUN \x1b[31mmake\x1b[0m 日本語 && "+strings.Repeat("very long ", 20)))
	for i := range 10 {
		s.Event(log(4+float64(i)/10, 5, fmt.Sprintf("\x1b[32mline\x1b[0m %d\n", i)))
	}
	s.Event(log(5.5, 5, "col\tumn\nnot yet a li"))
	s.Event(start(3.5, 6, "[docs 2/2] RUN false"))
	s.Event(log(3.6, 6, "oh no\n"))
	s.Event(failed(4.5, 6, `process "/bin/sh -c false" did not complete successfully: exit code: 1`))
	s.Event(start(4.5, 7, "[docs 2/2] RUN sleep 9"))
	s.Event(failed(4.6, 7, "canceled"))
	s.Event(warning(4.6, 0, "build argument V is not used"))
	return s
}

func TestScreenGolden(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{80, 24}, {120, 50}, {60, 12}, {40, 8}, {20, 5}, {8, 3}, {1, 1}} {
		for _, noColor := range []bool{true, false} {
			if !noColor && size[0] != 80 {
				continue
			}
			name := fmt.Sprintf("screen-%dx%d", size[0], size[1])
			if !noColor {
				name += "-color"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := bigBuild(progress.Options{NoColor: noColor})
				s.Resize(size[0], size[1])
				golden(t, name, s.Live()+"\n=== final\n"+s.Final())
			})
		}
	}
}

// What is told of the cache stands below the last picture.
func TestScreenTellsOfCache(t *testing.T) {
	t.Parallel()
	s := progress.NewScreen(progress.Options{NoColor: true, Now: func() time.Time { return at(1) }})
	for _, e := range builds["explained"] {
		s.Event(e)
	}
	const want = `
 Cache:
 - #1 [1/3] COPY a /: cache hit
 - #2 [2/3] COPY src /src: cache miss: file src/a.c changed
 - #3 [3/3] RUN make: cache miss: step [2/3] COPY src /src changed
`
	if got := s.Final(); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want at its end %s", got, want)
	}
}

// TestScreenFits checks every size: no row is wider than the terminal, and at
// least one stays free if there are several.
func TestScreenFits(t *testing.T) {
	t.Parallel()
	s := bigBuild(progress.Options{})
	for width := 1; width < 130; width += 1 + width/20 {
		for height := 1; height < 30; height += 1 + height/8 {
			s.Resize(width, height)
			rows := strings.Split(s.Live(), "\n")
			if len(rows) > max(1, height-1) {
				t.Errorf("%dx%d: %d rows", width, height, len(rows))
			}
			for _, row := range rows {
				if w := runewidth.StringWidth(withoutColor(row)); w > width {
					t.Fatalf("%dx%d: row of %d columns: %q", width, height, w, row)
				}
			}
		}
	}
}

func TestScreenManyRunning(t *testing.T) {
	t.Parallel()
	s := progress.NewScreen(progress.Options{NoColor: true, Now: func() time.Time { return at(1) }})
	for i := range 50 {
		s.Event(start(0, i+1, fmt.Sprintf("[%d]", i+1)))
		s.Event(log(0, i+1, "output\n"))
	}
	s.Resize(30, 10)
	rows := strings.Split(s.Live(), "\n")
	if len(rows) != 9 || !strings.HasPrefix(rows[8], " => [50]") {
		t.Errorf("got %q", rows)
	}
}

func TestScreenUnknownSize(t *testing.T) {
	t.Parallel()
	s := bigBuild(progress.Options{})
	want := s.Live() // 80x24
	s.Resize(0, 0)
	if got := s.Live(); got != want {
		t.Errorf("got %q", got)
	}
}
