package source

import (
	"github.com/opencontainers/go-digest"
)

// A Fetched is a file or a tree that came from elsewhere. It is a snapshot of its own,
// which later builds find again.
type Fetched struct {
	Key    digest.Digest // names the files
	RootFS *RootFS

	record digest.Digest // that the store has of a repository's tree; "" for a file
}

// Has reports whether the store has the files of f, and whether it has ever had them.
func (s *Sources) Has(f *Fetched) (now, ever bool) {
	if f.record == "" {
		return true, true
	}
	id, err := s.Store.Record(repositoryKind, f.record)
	if err != nil {
		return false, false
	}
	_, err = s.Store.Snapshot(string(id))
	return err == nil, true
}
