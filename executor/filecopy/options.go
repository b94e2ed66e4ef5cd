package filecopy

import (
	"context"
	"io"
	"path"

	"github.com/bobbuild/bob/snapshot/owners"
)

// Owner is a numeric user and group, as the file system being written knows
// them.
type Owner struct{ UID, GID uint32 }

// ids returns what to set for o, of which nil leaves files to the process.
func (o *Owner) ids() (uid, gid int) {
	if o == nil {
		return owners.Unchanged, owners.Unchanged
	}
	return int(o.UID), int(o.GID)
}

// Options say how files arrive at the destination. The zero value keeps owners
// and modes.
type Options struct {
	// Owner is given to everything that is copied and to the directories made
	// for it. nil keeps the owners of the source (COPY --from without --chown)
	// and leaves made directories to the process. A build context's files
	// belong to &Owner{} unless --chown says otherwise.
	Owner *Owner
	// Mode is the --chmod of every file and directory copied, nil to keep the
	// modes of the source.
	Mode *Chmod
	// Unpack, if set, unpacks local archives into the destination (ADD).
	Unpack *Unpack
	// Owners is how files of the destination have owners.
	Owners owners.Keeper
	// Reveal, if set, has what is at a path of the destination appear there, before
	// it is looked at. The path leads through no link.
	Reveal func(path string) error
}

// reveal calls Reveal for name in the directory at dir, if it is set.
func (o *Options) reveal(dir, name string) error {
	if o.Reveal == nil {
		return nil
	}
	return o.Reveal(path.Join(dir, name))
}

// Unpack knows archives.
type Unpack struct {
	// IsArchive reports whether a file that starts with header, at most
	// HeaderSize bytes, is an archive to unpack.
	IsArchive func(header []byte) bool
	// Extract unpacks r, read from its start, into dir, an existing directory
	// inside root, with no link in its path.
	Extract func(ctx context.Context, root, dir string, r io.Reader) error
}

// HeaderSize is how much of a file Unpack.IsArchive sees, in bytes: one whole
// block of bzip2, the format that needs most to give a first byte.
const HeaderSize = 1 << 20
