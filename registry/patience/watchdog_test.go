package patience_test

import (
	"context"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry/patience"
)

// TestWatchdog has one sleep for longer than it waits, and bite when it is awake.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	const idle = 50 * time.Millisecond
	ctx, dog := patience.Watch(t.Context(), idle)
	defer dog.End()
	dog.Moved() // says nothing while it is asleep
	time.Sleep(2 * idle)
	if err := context.Cause(ctx); err != nil {
		t.Fatalf("it bites in its sleep: %v", err)
	}
	dog.Name("GET", "host")
	dog.Allow(2)
	dog.Wake()
	<-ctx.Done()
	if err := patience.Stalled(ctx); err == nil || err.Error() != "GET to host stalled: no byte moved for 100ms" || !patience.Passing(err) {
		t.Errorf("got %v", err)
	}
	ctx, dog = patience.Watch(t.Context(), idle)
	dog.End()
	dog.Wake()
	if <-ctx.Done(); patience.Stalled(ctx) != nil {
		t.Error("one that has ended bites")
	}
}
