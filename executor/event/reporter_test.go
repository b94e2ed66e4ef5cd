package event_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/event"
)

// events collects what a reporter sends, whose clock stands still.
func events() (*event.Reporter, *[]event.Event) {
	var all []event.Event
	return event.NewReporter(func(e event.Event) { all = append(all, e) }, func() time.Time { return time.Time{} }), &all
}

// The same failure may be found in two ways, and the same warning for two platforms.
func TestOnce(t *testing.T) {
	t.Parallel()
	r, all := events()
	over := errors.New("over")
	r.Excuse(func(err error) bool { return errors.Is(err, over) })
	for range 2 {
		r.Fail("step", errors.New("no"))
		r.Fail("canceled", over)
		r.Warn("careful")
	}
	r.Start("other").Done(over)
	want := []event.Event{
		{Kind: event.Start, Vertex: 1, Name: "step"},
		{Kind: event.Done, Vertex: 1, Err: "no"},
		{Kind: event.Warning, Name: "careful"},
		{Kind: event.Start, Vertex: 2, Name: "other"},
		{Kind: event.Done, Vertex: 2, Err: "canceled"},
	}
	if !slices.EqualFunc(*all, want, func(a, b event.Event) bool {
		return a.Kind == b.Kind && a.Vertex == b.Vertex && a.Name == b.Name && a.Err == b.Err
	}) {
		t.Errorf("got %+v, want %+v", *all, want)
	}
}

// A transfer tells its beginning, every megabyte, and its end.
func TestCount(t *testing.T) {
	t.Parallel()
	r, all := events()
	const size = 5 << 19
	rc := r.Start("fetch").Count(io.NopCloser(strings.NewReader(strings.Repeat("x", size))), "blob", size)
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, rc, make([]byte, 1<<18)); n != size || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}
	var at []int64
	for _, e := range (*all)[1:] {
		at = append(at, e.Current)
		if e.Completed != (len(at) == 4) || e.Total != size {
			t.Errorf("%+v", e)
		}
	}
	if !slices.Equal(at, []int64{0, 1 << 20, 2 << 20, size}) {
		t.Errorf("told at %v", at)
	}
}
