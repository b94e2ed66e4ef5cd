package filecopy

import (
	"context"
	"errors"
	"fmt"
	"path"
)

// Find reports whether src stands for anything, with the errors of [Tree.Select] for
// what isn't there. It doesn't look into the directories that are copied, so that it
// costs a moment, and may miss what only that would show.
func (t *Tree) Find(ctx context.Context, src Source) (there bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	clean := path.Join("/", src.Path)[1:]
	if isWildcard(clean) {
		matches, err := t.glob(ctx, clean)
		if err != nil {
			return false, withSource(err, src.Path)
		}
		return len(matches) > 0, nil
	}
	at, err := t.find(clean)
	if err != nil {
		return false, withSource(err, src.Path)
	}
	defer closeFD(at.dir)
	switch {
	case isSocket(at.st.Mode):
		return false, fmt.Errorf("select %q: a socket can't be copied", src.Path)
	case !src.Required || src.Parents == "":
		return true, nil
	}
	below := path.Join(src.Path, src.Parents)
	end, err := t.find(below)
	if _, missing := errors.AsType[*NotFoundError](err); missing {
		return false, withSource(err, below)
	}
	if err == nil {
		closeFD(end.dir)
	}
	return true, nil // Select says what else is wrong
}
