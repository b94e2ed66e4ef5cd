package explain

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/bobbuild/bob/executor/event"
)

// A Case says whether the result of a step was known.
type Case struct {
	Step string `json:"step"` // as shown in the progress
	Hit  bool   `json:"hit"`
	// Reason says what kept a known result from being used, "" for a hit.
	Reason string `json:"reason,omitempty"`

	vertex int
}

// A Log has the cases of a build. It may be used by several goroutines.
type Log struct {
	asked bool

	mu    sync.Mutex
	cases []Case
}

// NewLog returns the log of a build. It stays empty, and reports nothing, unless
// explanations were asked for.
func NewLog(asked bool) *Log { return &Log{asked: asked} }

// Add reports to v whether the result of the step was known and, if not, why. It is
// called as soon as this is known, before anything is run.
func (l *Log) Add(ctx context.Context, v *event.Vertex, e *Entry, title string, hit bool) {
	if !l.asked {
		return
	}
	c := Case{Step: title, Hit: hit, vertex: v.Number()}
	if !hit {
		if c.Reason = e.anew; c.Reason == "" {
			c.Reason = e.why(ctx)
		}
	}
	l.mu.Lock()
	l.cases = append(l.cases, c)
	l.mu.Unlock()
	v.Explain(hit, c.Reason)
}

// Cases returns the cases in the order of the progress.
func (l *Log) Cases() []Case {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.SortFunc(l.cases, func(a, b Case) int { return cmp.Compare(a.vertex, b.vertex) })
	return l.cases
}
