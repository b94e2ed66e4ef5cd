package filecopy

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/bobbuild/bob/snapshot/owners"
)

// attributes are what copies keep, and digests hold, of an open file beside its bytes,
// owner, mode and times. The zero value is a file without any.
type attributes struct {
	xattrs map[string]string // the carried ones
}

// readAttributes reads the attributes of the open file fd with the mode st_mode.
func readAttributes(fd int, mode uint32, keeper owners.Keeper) (a attributes, err error) {
	a.xattrs, err = keeper.Xattrs(fd, mode)
	return a, err
}

// write gives the open file fd the attributes that its file system has.
func (a attributes) write(fd int, keeper owners.Keeper) error {
	for name, value := range a.xattrs {
		err := keeper.Fsetxattr(fd, name, []byte(value))
		if err != nil && !owners.NoXattrs(err) {
			return fmt.Errorf("set extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// encode writes a into a digest.
func (a attributes) encode(e *encoder) {
	e.number(uint64(len(a.xattrs)))
	for _, name := range slices.Sorted(maps.Keys(a.xattrs)) {
		e.text(name)
		e.text(a.xattrs[name])
	}
}

// sum returns the sum of a directory with the attributes.
func (a attributes) sum() (sum Sum) {
	enc := &encoder{hash: sha256.New()}
	a.encode(enc)
	enc.hash.Sum(sum[:0])
	return sum
}
