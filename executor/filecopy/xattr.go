package filecopy

import (
	"fmt"

	"github.com/bobbuild/bob/snapshot/owners"
)

// writeXattrs sets extended attributes on the open file fd, where its file system has
// such.
func writeXattrs(fd int, xattrs map[string]string, keeper owners.Keeper) error {
	for name, value := range xattrs {
		err := keeper.Fsetxattr(fd, name, []byte(value))
		if err != nil && !owners.NoXattrs(err) {
			return fmt.Errorf("set extended attribute %s: %w", name, err)
		}
	}
	return nil
}
