package source

import (
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
)

// DecodeSums reads a record of file sums, and returns how many it tells.
func DecodeSums(store *snapshot.Store, data []byte) int {
	s := &fileSums{store: store, known: make(map[filecopy.FileID]fileSum)}
	s.decode(append([]byte(store.Boot()+"\n"), data...))
	return len(s.known)
}
