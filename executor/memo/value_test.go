package memo_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/memo"
)

// asked has a goroutine ask m, and returns where the answer will be.
func asked(ctx context.Context, m *memo.Value[string], makeIt func(context.Context) (string, error)) <-chan string {
	answer := make(chan string, 1)
	go func() {
		value, err := m.Get(ctx, makeIt)
		if err != nil {
			value = err.Error()
		}
		answer <- value
	}()
	return answer
}

// Who asks first decides about nobody's time but their own.
func TestValueOutlivesWhoAsked(t *testing.T) {
	t.Parallel()
	var m memo.Value[string]
	begun, goOn := make(chan struct{}), make(chan struct{})
	makeIt := func(ctx context.Context) (string, error) {
		if _, limited := ctx.Deadline(); limited {
			return "", errors.New("it has a deadline")
		}
		close(begun)
		select {
		case <-goOn:
			return "made", nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	first, end := context.WithCancelCause(t.Context())
	limited, cancel := context.WithTimeout(first, time.Hour)
	defer cancel()
	one := asked(limited, &m, makeIt)
	<-begun
	late := errors.New("late")
	second, endSecond := context.WithCancelCause(t.Context())
	never := func(context.Context) (string, error) { return "", errors.New("made twice") }
	two, three := asked(second, &m, never), asked(t.Context(), &m, never)
	memo.AwaitWaiters(&m, 3)
	end(late)
	if got := <-one; got != "late" {
		t.Errorf("the first got %q", got)
	}
	endSecond(errors.New("tired"))
	if got := <-two; got != "tired" {
		t.Errorf("the second got %q", got)
	}
	close(goOn)
	if got := <-three; got != "made" {
		t.Errorf("the third got %q", got)
	}
	if got := <-asked(t.Context(), &m, never); got != "made" {
		t.Errorf("a late one got %q", got)
	}
}

// What nobody waits for any more ends, and is made anew for whoever asks then.
func TestValueThatIsGivenUp(t *testing.T) {
	t.Parallel()
	var m memo.Value[string]
	begun, ending, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ctx, end := context.WithCancelCause(t.Context())
	one := asked(ctx, &m, func(ctx context.Context) (string, error) {
		close(begun)
		<-ctx.Done()
		close(ending)
		<-ended
		return "", context.Cause(ctx)
	})
	<-begun
	end(errors.New("interrupted"))
	<-ending
	two := asked(t.Context(), &m, func(context.Context) (string, error) {
		select {
		case <-ended:
			return "anew", nil
		default:
			return "", errors.New("two were made at once")
		}
	})
	select {
	case got := <-one:
		t.Errorf("the last one left with %q before the work had ended", got)
	case got := <-two:
		t.Errorf("got %q", got)
	default:
	}
	close(ended)
	if got := <-one; got != "interrupted" {
		t.Errorf("who gave up got %q", got)
	}
	if got := <-two; got != "anew" {
		t.Errorf("who came later got %q", got)
	}
}

// An error is for everybody, and final.
func TestValueKeepsItsError(t *testing.T) {
	t.Parallel()
	var m memo.Value[string]
	makes := 0
	for range 3 {
		_, err := m.Get(t.Context(), func(context.Context) (string, error) {
			makes++
			return "", errors.New("no")
		})
		if err == nil || makes != 1 {
			t.Errorf("got %v after %d attempts", err, makes)
		}
	}
}

// A value that is there is for whoever asks, and nothing is begun for who has ended.
func TestValueAfterTheEnd(t *testing.T) {
	t.Parallel()
	var m memo.Map[string, string]
	ctx, end := context.WithCancelCause(t.Context())
	is := func(value string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { return value, nil }
	}
	if got, err := m.Get(ctx, "one", is("1")); got != "1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	over := errors.New("over")
	end(over)
	for range 20 { // a select has no order
		if got, err := m.Get(ctx, "one", is("another")); got != "1" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if got, err := m.Get(ctx, "two", is("2")); got != "" || !errors.Is(err, over) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := m.Get(t.Context(), "two", is("2")); got != "2" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
