package snapshot

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/owners"
)

// Owner is a numeric user and group.
type Owner = layertar.Owner

// A Tree is a directory as part of an archive.
type Tree = layertar.Tree

// ExtractOptions tell Extract what not to take from the archive, and how to set the
// rest.
type ExtractOptions struct {
	NoChown bool   // files belong to the process, not to whom the archive says
	Owner   *Owner // files belong to this one, not to whom the archive says
	// Owners is how the tree has owners. Below a root of a store it is that of
	// [Store.Owners].
	Owners owners.Keeper
	// LeaveOut is told of each device that the kernel doesn't let this process make,
	// by its path in the tree. If it is nil such a device is an error.
	LeaveOut func(path string)
	// In is the active snapshot whose root the tree is, nil if it is no such root.
	In *Active
	// MaxSize is what the archive may unpack to, in bytes; 0 has no bound. The budget of
	// package bounded tells what counts.
	MaxSize int64
}

// Extract unpacks a tar, plain or compressed by gzip, bzip2, xz or zstd, into the
// directory dir of the tree root. Links in dir are followed within root, and made
// where they lead to nothing. From there on dir is the root of the file system, as in
// BuildKit: a link where an entry's parent directory is looked up is followed within
// dir, a ".." in a name or a link ends there, and a link that leads to nothing is an
// error. Missing directories are made
// with mode 0755. An entry replaces what is there, with all below it, unless both
// are directories. A hard link gives the file the owner, mode, time and attributes of
// its own entry. Whiteouts are ordinary files. After an error some of the entries are
// there.
func Extract(ctx context.Context, root, dir string, r io.Reader, o ExtractOptions) error {
	to := layertar.Options{NoChown: o.NoChown, Owner: o.Owner, Owners: o.Owners, LeaveOut: o.LeaveOut, Budget: bounded.NewBudget(o.MaxSize)}
	if o.In != nil {
		to.In, _ = o.In.changed.(layertar.Underlay)
	}
	if err := layertar.Extract(ctx, root, dir, r, to); err != nil {
		return fmt.Errorf("extract archive into %s: %w", dir, err)
	}
	return nil
}

// ArchiveTime returns the latest modification time of a regular file in a tar,
// plain or compressed; zero if r is no archive, or one that has none.
func ArchiveTime(r io.Reader) time.Time { return layertar.Time(r) }

// IsArchive reports whether a file that begins with header is a tar, plain or
// compressed by gzip, bzip2, xz or zstd: whether its first entry can be read, as in
// BuildKit. If header is too short to decompress that entry's headers from it, the
// answer is yes.
func IsArchive(header []byte) bool { return layertar.IsArchive(header) }

// Archive returns the whole tree t as a tar, entries sorted, its root itself left
// out, with file capabilities and user attributes. Sockets are left out too. Every
// modification time is written as at, if that isn't nil. Reading fails when ctx ends
// or when a file changes its size meanwhile. The caller closes the reader, and leaves
// the tree in place until then.
func Archive(ctx context.Context, t Tree, at *time.Time) (io.ReadCloser, error) {
	return ArchiveTrees(ctx, []Tree{t}, at)
}

// ArchiveTrees is [Archive] of several trees in one tar, in their order. The
// directories that they are named after belong to root, with the mode 0755.
func ArchiveTrees(ctx context.Context, trees []Tree, at *time.Time) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("archive: %w", context.Cause(ctx))
	}
	clock, err := layertar.Always(at)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return layertar.Stream(ctx, func(ctx context.Context, w io.Writer) error {
		return layertar.WriteTrees(ctx, w, trees, clock)
	}), nil
}
