package stream_test

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/stream"
)

// TestHeldPipe finishes a stream while somebody else still holds, or even
// fills, the pipe.
func TestHeldPipe(t *testing.T) {
	t.Parallel()
	for _, endless := range []bool{false, true} {
		var got bytes.Buffer
		s, err := stream.Open(&got, &got)
		if err != nil {
			t.Fatal(err)
		}
		held, err := unix.Dup(int(s.Stdout().Fd()))
		if err != nil {
			t.Fatal(err)
		}
		content := bytes.Repeat([]byte("x"), 60_000) // less than a pipe holds
		if _, err := unix.Write(held, content); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		if endless {
			go func() {
				defer close(done)
				for err := error(nil); err == nil; { // until nobody reads
					_, err = unix.Write(held, content)
				}
			}()
		} else {
			close(done)
		}
		s.Start(func(err error) { t.Error(err) })
		if err := s.Finish(); err != nil {
			t.Error(err)
		}
		<-done
		if err := unix.Close(held); err != nil {
			t.Error(err)
		}
		if !bytes.HasPrefix(got.Bytes(), content) || !endless && got.Len() != len(content) {
			t.Errorf("got %d bytes, want %d", got.Len(), len(content))
		}
	}
}
