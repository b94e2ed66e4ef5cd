package executor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
)

// When a build ends early, the steps that were running are canceled and those that had
// not begun are not heard of. What came first is the error.
func TestCanceledSteps(t *testing.T) {
	t.Parallel()
	signal := errors.New("terminated")
	limit := &executor.TimeoutError{Flag: "--timeout", Limit: time.Hour}
	for name, tt := range map[string]struct {
		last   string // what the last of the stuck commands does
		cause  error  // that it ends the build's context with
		failed string // the step that has an error, "" for none
		want   string // the error
	}{
		"a signal":              {"wait", signal, "", "terminated"},
		"a time-out":            {"wait", limit, "", "RUN wait: ended after 1h0m0s, the limit of --timeout"},
		"an error":              {"fail", nil, "RUN fail", "RUN fail: process"},
		"an error and a signal": {"fail", signal, "RUN fail", "RUN fail: process"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, end := context.WithCancelCause(t.Context())
			stuck := make(chan struct{}, 2)
			k := newKit(t, func(run context.Context, p *sandbox.Process) error {
				if strings.HasSuffix(p.Args[len(p.Args)-1], "fail") {
					<-stuck
					<-stuck
					return &sandbox.ExitError{Code: 1}
				}
				stuck <- struct{}{}
				<-run.Done()
				if tt.last == "fail" && tt.cause != nil {
					end(tt.cause) // too late
				}
				return context.Cause(run)
			})
			if tt.last == "wait" {
				go func() {
					for range 3 {
						<-stuck
					}
					end(tt.cause)
				}()
			}
			text := `FROM scratch AS one
RUN stuck 1
FROM scratch AS two
RUN stuck 2
FROM scratch AS three
RUN ` + tt.last + `
FROM scratch
COPY --from=one /a /
COPY --from=two /a /
COPY --from=three /a /
RUN --mount=from=one,target=/m never
`
			_, err := k.build(ctx, text, executor.Options{Jobs: 4})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "COPY") || strings.Contains(err.Error(), "never") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, step := errors.AsType[*executor.StepError](err); step != strings.Contains(tt.want, ":") {
				t.Errorf("%v tells of a step: %t", err, step)
			}
			started := make(map[int]string)
			for _, e := range k.events {
				switch e.Kind { //nolint:exhaustive // what tells of ends
				case event.Start:
					started[e.Vertex] = e.Name
					if strings.Contains(e.Name, "COPY") || strings.Contains(e.Name, "never") {
						t.Errorf("%s has begun", e.Name)
					}
				case event.Done:
					want := "canceled"
					if tt.failed != "" && strings.Contains(started[e.Vertex], tt.failed) {
						want = "process"
					}
					if !strings.Contains(e.Err, want) {
						t.Errorf("%s ended with %q, want %s", started[e.Vertex], e.Err, want)
					}
				}
			}
			if len(started) != 3 {
				t.Errorf("started: %v", started)
			}
		})
	}
}
