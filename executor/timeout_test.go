package executor_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
)

// What takes longer than it may is ended and named, with its place; what waits for
// it is not.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	stuck := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck }))
	t.Cleanup(func() {
		close(stuck)
		slow.Close()
	})
	for name, tt := range map[string]struct {
		text        string
		step, build time.Duration
		want        []string // each of which the error names; none: no error
	}{
		"step":          {"FROM HOST/base\nRUN quick\nRUN stuck\n", time.Second, 0, []string{"Dockerfile:3: RUN stuck: ended after 1s, the limit of --step-timeout"}},
		"build":         {"FROM HOST/base\nRUN quick\nRUN stuck\n", 0, 3 * time.Second, []string{"Dockerfile:3: RUN stuck: ended after 3s, the limit of --timeout"}},
		"both":          {"FROM HOST/base\nRUN stuck\n", time.Hour, 3 * time.Second, []string{"Dockerfile:2: RUN stuck: ended after 3s, the limit of --timeout"}},
		"not who waits": {"FROM HOST/base AS one\nRUN stuck\nFROM HOST/base\nCOPY --from=one /b /c\n", 0, 3 * time.Second, []string{"Dockerfile:2: RUN stuck: ended after 3s"}},
		"two at once": {
			"FROM HOST/base AS one\nRUN stuck\nFROM HOST/base\nRUN stuck too\nCOPY --from=one /b /c\n", 0, 3 * time.Second,
			[]string{"Dockerfile:2: RUN stuck: ended after 3s", "Dockerfile:4: RUN stuck too: ended after 3s"},
		},
		"a download": {"FROM HOST/base\nADD " + slow.URL + "/f /\n", time.Second, 0, []string{"Dockerfile:2: ADD " + slow.URL + "/f /: ended after 1s, the limit of --step-timeout"}},
		"in time":    {"FROM HOST/base\nRUN quick\n", time.Hour, time.Hour, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
				if !strings.Contains(p.Args[len(p.Args)-1], "stuck") {
					_, err := io.WriteString(p.Stdout, "done\n")
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			})
			k.base("base", map[string]string{"b": "b"})
			ctx := t.Context()
			if tt.build > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, tt.build, &executor.TimeoutError{Flag: "--timeout", Limit: tt.build})
				defer cancel()
			}
			_, err := k.build(ctx, tt.text, executor.Options{StepTimeout: tt.step, Jobs: 4})
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if _, ok := errors.AsType[*executor.TimeoutError](err); !ok || strings.Count(err.Error(), "ended after") != len(tt.want) {
				t.Fatalf("got %v, want %d timeouts", err, len(tt.want))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}
