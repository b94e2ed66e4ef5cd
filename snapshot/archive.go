package snapshot

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
)

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

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

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
	if err := extract(ctx, root, dir, r, o); err != nil {
		return fmt.Errorf("extract archive into %s: %w", dir, err)
	}
	return nil
}

func extract(ctx context.Context, root, dir string, r io.Reader, o ExtractOptions) error {
	x, err := newExtractor(root, o, nil)
	if err != nil {
		return err
	}
	defer x.tree.close()
	name, err := relpath.Clean(dir)
	if err != nil {
		return err
	}
	d, err := x.tree.resolve(name, true)
	if err != nil {
		return err
	}
	// What was made on the way is finished while names count from above it.
	if err := x.finish(); err != nil {
		return err
	}
	clear(x.dirs)
	if err := x.tree.enter(d); err != nil {
		return err
	}
	content, err := bounded.Decompress(r)
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	defer content.Close()
	counted := x.budget.Reader(content)
	if err := x.run(ctx, counted); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return fmt.Errorf("read to the end: %w", err)
	}
	return x.finish()
}

// ArchiveTime returns the latest modification time of a regular file in a tar,
// plain or compressed; zero if r is no archive, or one that has none.
func ArchiveTime(r io.Reader) time.Time {
	var latest time.Time
	content, err := bounded.Decompress(r)
	if err != nil {
		return latest
	}
	defer content.Close()
	for archive := tar.NewReader(content); ; {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return latest
		case err != nil:
			return time.Time{}
		case h.FileInfo().Mode().IsRegular() && h.ModTime.After(latest):
			latest = h.ModTime
		}
	}
}
