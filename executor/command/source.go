package command

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A Source is the origin of the files of a bind mount or of a new cache mount.
type Source struct {
	Content digest.Digest // of what the path selects
	Path    string        // absolute and clean, in the snapshot
	// Snapshot makes the files present. It returns nil for the empty file system.
	Snapshot func(context.Context) (*snapshot.Snapshot, error)
}

// Select selects what is at the path called name. With itself it selects a directory
// besides its contents.
func Select(ctx context.Context, src *filecopy.Tree, name string, itself bool) (*filecopy.Selection, error) {
	of := Literal(name)
	of.Itself = itself
	selection, err := src.Select(ctx, of)
	if err == nil && selection.Sources() == 0 {
		err = &filecopy.NotFoundError{Source: name}
	}
	return selection, err
}

// Literal is the selection of name, whose characters stand for themselves.
func Literal(name string) filecopy.Source {
	pattern := strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", `\`, `[\\]`).Replace(name)
	return filecopy.Source{Path: strings.TrimPrefix(path.Join(".", pattern), "/")}
}

// CacheKey returns the name of the cache of m, whose first files come from from unless
// that is nil. As in BuildKit, caches with the same ID and other first files are
// different caches. The name has a version of its own, since what commands keep in a
// cache stays good when other keys change.
func CacheKey(m *dockerfile.CacheMount, from *Source) digest.Digest {
	values := []string{m.ID, ""}
	if m.Emptied() {
		values[1] = fmt.Sprintf("{%d %d %d}", m.Owner.UID, m.Owner.GID, m.Owner.Mode)
	}
	if from != nil {
		// Only what the source selects is copied, where BuildKit keeps all of
		// From under one ID.
		values = append(values, from.Content.String(), m.Source)
	}
	return recipe.Lasting("bob.key.v2", "cache mount", values...)
}

// An Imported is a cache mount of an imported cache.
type Imported struct {
	ID string // as the Dockerfile has it
	// Unpack makes the directory dir with the content of the mount, and returns the
	// owner that the caller has to give it. After an error dir doesn't exist.
	Unpack func(ctx context.Context, dir string) (dockerfile.MountOwner, error)
}

// ID is the ID of m as a Dockerfile has it, without BUILDKIT_CACHE_MOUNT_NS.
func ID(m *dockerfile.CacheMount) string {
	_, id, _ := strings.Cut(m.ID, "/")
	return id
}
