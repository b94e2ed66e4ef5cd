package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// An unpackLimit is the flag that limits how much a layer, an archive, a repository or
// a download may take on the disk.
type unpackLimit struct{ size cli.Text }

func (l *unpackLimit) register(fs *flag.FlagSet) {
	fs.Var(&l.size, "max-unpacked-size", "`size` that a layer, an archive, a repository or a download may have unpacked, 0 for any (default 100g, or nine tenths of the free disk if that is less, but 1g at least)")
}

// The bounds of the default, in bytes. The default isn't below the least even if less
// space is free: then the error is a full disk, not a large archive.
const (
	defaultUnpackLimit = 100 << 30
	leastUnpackLimit   = 1 << 30
)

// bytes returns the limit, 0 for no limit. cache is the directory that things are unpacked
// in, which may not exist yet.
func (l *unpackLimit) bytes(cache string) (int64, error) {
	if l.size != "" {
		n, err := units.RAMInBytes(string(l.size))
		if err != nil || n < 0 {
			return 0, cli.Wrong("max-unpacked-size", l.size, "want a size as 500m or 100g, or 0")
		}
		return n, nil
	}
	for dir := cache; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		switch err := unix.Statfs(dir, &st); {
		case err == nil:
			free := int64(st.Bavail) * st.Bsize
			return max(leastUnpackLimit, min(defaultUnpackLimit, free/10*9)), nil
		case errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir):
		default:
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
	}
}
