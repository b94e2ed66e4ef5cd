package explain

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/bobbuild/bob/executor/filecopy"
)

// maxFiles bounds the files of one step whose sums are remembered.
const maxFiles = 20_000

// fileList is the files that a step read of a directory of this machine.
type fileList struct {
	Count int               `json:"count"`
	Sums  map[string]string `json:"sums,omitempty"` // by path; empty if there are more than maxFiles
}

// sumFiles lists the files of the selections.
func sumFiles(ctx context.Context, selections []*filecopy.Selection) (*fileList, error) {
	list := &fileList{Sums: make(map[string]string)}
	for _, s := range selections {
		err := s.Each(ctx, func(path string, sum filecopy.Sum) error {
			list.Count++
			if list.Count <= maxFiles {
				list.Sums[path] = fmt.Sprintf("%x", sum[:6])
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if list.Count > maxFiles {
		list.Sums = nil
	}
	return list, nil
}

// changes names the files that differ between is and list.
func (list *fileList) changes(is *fileList) (changes []string) {
	if list.Sums == nil || is.Sums == nil {
		return []string{fmt.Sprintf("files changed: there were %d, there are %d", list.Count, is.Count)}
	}
	for _, path := range slices.Sorted(maps.Keys(is.Sums)) {
		switch sum, known := list.Sums[path]; {
		case !known:
			changes = append(changes, "file "+path+" is new")
		case sum != is.Sums[path]:
			changes = append(changes, "file "+path+" changed")
		}
	}
	for _, path := range slices.Sorted(maps.Keys(list.Sums)) {
		if _, still := is.Sums[path]; !still {
			changes = append(changes, "file "+path+" is missing")
		}
	}
	return changes
}
