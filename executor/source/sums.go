package source

import (
	"bytes"
	"encoding/binary"
	"sync"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// sumsKind are records of the sums of files in a directory of this machine, so
// that a build reads no file that hasn't changed since an earlier one.
const sumsKind = "sums-2"

// maxSumsAge is how many builds may pass over a file before it is forgotten.
const maxSumsAge = 20

// A fileSum is the sum of a file, and how many builds ago that was last asked for.
type fileSum struct {
	sum filecopy.Sum
	age uint8
}

// fileSums are the sums of the files of one directory.
type fileSums struct {
	store *snapshot.Store
	key   digest.Digest

	mu      sync.Mutex
	known   map[filecopy.FileID]fileSum
	changed bool // something is new
}

// readSums returns what earlier builds have remembered under key. It ignores what it
// can't read.
func readSums(store *snapshot.Store, key digest.Digest) *fileSums {
	s := &fileSums{store: store, key: key, known: make(map[filecopy.FileID]fileSum)}
	if data, err := store.Record(sumsKind, key); err == nil {
		s.decode(data)
	}
	return s
}

// Find implements filecopy.Sums.
func (s *fileSums) Find(id filecopy.FileID) (filecopy.Sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.known[id]
	if ok && f.age > 0 {
		f.age = 0
		s.known[id] = f
	}
	return f.sum, ok
}

// Keep implements filecopy.Sums.
func (s *fileSums) Keep(id filecopy.FileID, sum filecopy.Sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[id] = fileSum{sum: sum}
	s.changed = true
}

// save remembers everything for later builds. If several builds end at the same time,
// the sums of one are stored.
func (s *fileSums) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed {
		return nil
	}
	return s.store.PutRecord(sumsKind, s.key, s.encode())
}

// sumSize is the length of an encoded file: five numbers, the sum and the age.
const sumSize = 5*8 + len(filecopy.Sum{}) + 1

func (s *fileSums) encode() []byte {
	boot := s.store.Boot()
	data := make([]byte, 0, len(boot)+1+len(s.known)*sumSize)
	data = append(append(data, boot...), '\n')
	for id, f := range s.known {
		if f.age >= maxSumsAge {
			continue
		}
		for _, n := range []uint64{id.Dev, id.Inode, uint64(id.Size), uint64(id.Mtime), uint64(id.Ctime)} {
			data = binary.BigEndian.AppendUint64(data, n)
		}
		data = append(data, f.sum[:]...)
		data = append(data, f.age+1)
	}
	return data
}

// decode adds what encode has made in the same boot of the machine: a power failure
// may leave a file with other content under the same times.
func (s *fileSums) decode(data []byte) {
	boot, data, _ := bytes.Cut(data, []byte{'\n'})
	if string(boot) != s.store.Boot() {
		return
	}
	for ; len(data) >= sumSize; data = data[sumSize:] {
		n := func(i int) uint64 { return binary.BigEndian.Uint64(data[i*8:]) }
		f := fileSum{age: data[sumSize-1]}
		copy(f.sum[:], data[5*8:])
		s.known[filecopy.FileID{Dev: n(0), Inode: n(1), Size: int64(n(2)), Mtime: int64(n(3)), Ctime: int64(n(4))}] = f
	}
}
