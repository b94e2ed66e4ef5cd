package progress_test

import (
	"fmt"
	"os"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/progress"
)

func ExampleNew() {
	view, err := progress.New(progress.Plain, os.Stdout, progress.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	begin := time.Now()
	view.Event(event.Event{Kind: event.Start, Time: begin, Vertex: 1, Name: "[1/1] RUN make"})
	view.Event(event.Event{
		Kind: event.Log, Time: begin.Add(123 * time.Millisecond), Vertex: 1,
		Stream: 1, Data: []byte("cc -o main main.c\n"),
	})
	view.Event(event.Event{Kind: event.Done, Time: begin.Add(1200 * time.Millisecond), Vertex: 1})
	if err := view.Close(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// #1 [1/1] RUN make
	// #1 0.123 cc -o main main.c
	// #1 DONE 1.2s
}
