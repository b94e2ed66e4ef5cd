package filecopy

import (
	"context"
	"path/filepath"
	"strings"
)

// Clone copies the file, link or directory at the path from to the path to. Nothing is
// there, but its parent exists. Owners, modes and times are kept, except for from itself if
// it is a directory: then to has mode 0755. After an error, what was copied
// remains.
func Clone(ctx context.Context, from, to string) error {
	tree, err := OpenDir(filepath.Dir(from), nil)
	if err != nil {
		return err
	}
	defer func() { _ = tree.Close() }()
	name := strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", `\`, `[\\]`).Replace(filepath.Base(from))
	selection, err := tree.Select(ctx, Source{Path: name})
	if err != nil {
		return err
	}
	return selection.CopyTo(ctx, filepath.Dir(to), "/"+filepath.Base(to), Options{})
}
