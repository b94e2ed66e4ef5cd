package filecopy

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"golang.org/x/sys/unix"
)

// UnpackContext unpacks a build context that comes as a tar archive (ustar, PAX
// or GNU; plain or compressed with gzip, bzip2, xz or zstd) into dir, an empty
// private directory, for OpenDir. Names are confined to dir, whatever they and
// the archive's links say. Modes, modification times, symbolic and hard links
// are kept. Owners are not, because the owners of a context mean nothing. Extended
// attributes are not kept either. Devices and fifos are left out. The budget bounds what there may
// be. The context is asked before each read from r. After an error, what was unpacked
// remains.
func UnpackContext(ctx context.Context, r io.Reader, dir string, budget *bounded.Budget) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack context: %w", err)
	}
	defer root.Close()
	plain, err := bounded.Decompress(readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	if err != nil {
		return fmt.Errorf("unpack context: %w", err)
	}
	defer plain.Close()
	u := &unpacker{root: root, archive: tar.NewReader(budget.Reader(plain))}
	for {
		h, err := u.archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("unpack context: %w", err)
		}
		if err = budget.TarEntry(h); err == nil {
			err = u.entry(h)
		}
		if err != nil {
			return fmt.Errorf("unpack context: %q: %w", h.Name, err)
		}
	}
	if err := u.finish(); err != nil {
		return fmt.Errorf("unpack context: %w", err)
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// unpacker writes the entries of one archive.
type unpacker struct {
	root    *os.Root
	archive *tar.Reader
	dirs    []directory // their modes and times come last
}

// directory is what one gets when all is in it.
type directory struct {
	name  string
	mode  fs.FileMode
	mtime time.Time
}

func (u *unpacker) entry(h *tar.Header) error {
	name := path.Clean("/" + h.Name)[1:]
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(name, h)
	case tar.TypeReg, tar.TypeSymlink, tar.TypeLink, tar.TypeGNUSparse:
	case tar.TypeXGlobalHeader, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return nil
	default:
		return fmt.Errorf("unknown type %q of entry", h.Typeflag)
	}
	if name == "" {
		return errors.New("the root is not a directory")
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		target := path.Clean("/" + h.Linkname)[1:]
		if target == name {
			return nil
		}
		if err := u.clear(name); err != nil {
			return err
		}
		return u.root.Link(target, name)
	}
	if err := u.clear(name); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return u.symlink(name, h)
	}
	return u.file(name, h)
}

// clear removes what an earlier entry put at name, but for a directory.
func (u *unpacker) clear(name string) error {
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacker) directory(name string, h *tar.Header) error {
	if name == "" {
		return nil
	}
	if err := u.root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	u.dirs = append(u.dirs, directory{name, modeOf(h), h.ModTime})
	return nil
}

func (u *unpacker) symlink(name string, h *tar.Header) error {
	if err := u.root.Symlink(h.Linkname, name); err != nil {
		return err
	}
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return setTime(int(dir.Fd()), path.Base(name), unix.NsecToTimespec(h.ModTime.UnixNano()))
}

func (u *unpacker) file(name string, h *tar.Header) (err error) {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	if _, err := io.Copy(f, u.archive); err != nil {
		return err
	}
	if err := f.Chmod(modeOf(h)); err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

// finish sets modes and times of directories, the innermost first: one made
// unwritable or touched by a later entry stays right.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.dirs) {
		st, err := u.root.Lstat(d.name)
		if err != nil || !st.IsDir() {
			continue // replaced by a later entry
		}
		if err := u.root.Chmod(d.name, d.mode); err != nil {
			return err
		}
		if err := u.root.Chtimes(d.name, d.mtime, d.mtime); err != nil {
			return err
		}
	}
	return nil
}

func modeOf(h *tar.Header) fs.FileMode {
	return h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
}
