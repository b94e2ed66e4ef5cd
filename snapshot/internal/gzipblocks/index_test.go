package gzipblocks_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/gzipblocks"
	"github.com/opencontainers/go-digest"
)

// blocksOf returns n blocks with keys of their own.
func blocksOf(name string, n int) (blocks []gzipblocks.Block) {
	for i := range n {
		blocks = append(blocks, gzipblocks.Block{Key: keyOf(name, i), Size: 10 + i})
	}
	return blocks
}

func keyOf(name string, i int) (key gzipblocks.Key) {
	copy(key[:], digest.FromString(fmt.Sprint(name, i)).Encoded())
	return key
}

func TestIndex(t *testing.T) {
	t.Parallel()
	x := gzipblocks.ReadIndex(nil)
	for _, name := range []string{"one", "two", "one"} {
		x = gzipblocks.ReadIndex(x.Add(digest.FromString(name), blocksOf(name, 3)).Encode())
	}
	for _, name := range []string{"one", "two"} {
		want := gzipblocks.Place{Blob: digest.FromString(name), Offset: gzipblocks.HeaderSize + 10 + 11, Size: 12}
		if got, found := x.Find(keyOf(name, 2)); !found || got != want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, found, want)
		}
	}
	if _, found := x.Find(keyOf("three", 0)); found {
		t.Error("a block is found that nobody added")
	}

	data := x.Encode()
	if again := gzipblocks.ReadIndex(data).Encode(); !bytes.Equal(again, data) {
		t.Error("what was read is encoded otherwise")
	}
	for n := range data { // torn anywhere
		if _, found := gzipblocks.ReadIndex(data[:n]).Find(keyOf("two", 2)); found {
			t.Errorf("the last block is found in %d of %d bytes", n, len(data))
		}
	}

	for i := range 20 { // more than it keeps
		x = x.Add(digest.FromString(fmt.Sprint(i)), blocksOf(fmt.Sprint(i), 1000))
	}
	if _, found := x.Find(keyOf("19", 999)); !found {
		t.Error("the newest stream is not there")
	}
	if _, found := x.Find(keyOf("1", 0)); found {
		t.Error("an old stream is still there")
	}
}
