package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/progress"
)

// viewFlags say how a build is shown.
type viewFlags struct {
	quiet    bool
	progress string
}

func (f *viewFlags) register(fs *flag.FlagSet, quiet string) {
	fs.BoolVar(&f.quiet, "quiet", false, quiet)
	fs.StringVar(&f.progress, "progress", "auto", "`mode` of progress on standard error: auto, plain, tty, quiet or rawjson")
}

// mode returns the mode that is asked for.
func (f *viewFlags) mode() (progress.Mode, error) {
	if f.quiet {
		return progress.Quiet, nil
	}
	mode, err := progress.ParseMode(f.progress)
	if err != nil {
		return mode, cli.About("progress", "", cli.Errorf("--progress: %v", err))
	}
	return mode, nil
}

// newView returns a view of a build on w. Views make what they show safe themselves,
// since the output of RUN keeps its colours; only rawjson hands everything on.
func newView(mode progress.Mode, w io.Writer) (progress.View, error) {
	if mode == progress.RawJSON {
		w = terminal.JSON(w)
	}
	return progress.New(mode, w, progress.Options{NoColor: os.Getenv("NO_COLOR") != "", Term: os.Getenv("TERM")})
}

// warnIn returns a function that shows remarks in view.
func warnIn(view progress.View) func(string) {
	return func(text string) {
		view.Event(event.Event{Time: time.Now(), Kind: event.Warning, Name: text})
	}
}

// notices returns a function that writes lines to w unless quiet is set.
func notices(w io.Writer, quiet bool) func(string) {
	var mu sync.Mutex
	return func(text string) {
		mu.Lock()
		defer mu.Unlock()
		if !quiet {
			fmt.Fprint(w, terminal.EscapeLines(text+"\n"))
		}
	}
}
