package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/sys/unix"
)

// inDirectory makes the directory name in root and calls f with it.
func inDirectory(root *os.Root, name string, f func(*os.Root) error) error {
	if err := root.Mkdir(name, 0o700); err != nil {
		return err
	}
	sub, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := f(sub); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}

func writeBlob(ctx context.Context, root *os.Root, name string, blob *object.Blob, perm os.FileMode) (err error) {
	in, err := blob.Reader()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, bounded.Reader(ctx, in, bounded.NoLimit)); err != nil {
		return err
	}
	return out.Chmod(perm)
}

func writeLink(root *os.Root, name, rel string, blob *object.Blob) error {
	if blob.Size > unix.PathMax {
		return fmt.Errorf("%q: the target of a symbolic link can't have %d bytes", rel, blob.Size)
	}
	in, err := blob.Reader()
	if err != nil {
		return err
	}
	defer in.Close()
	target, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	return root.Symlink(string(target), name)
}

// hidden are the characters that HFS+ leaves out of names when it compares them.
const hidden = "\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u206a\u206b\u206c\u206d\u206e\u206f\ufeff"

// checkName refuses what git refuses: names that aren't one component of a
// path, and what some file system takes for .git.
func checkName(name string) error {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune(hidden, r) {
			return -1
		}
		return r
	}, name)
	short, _, _ := strings.Cut(plain, ":")
	short = strings.TrimRight(short, ". ")
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return errors.New("not a name")
	case strings.EqualFold(short, ".git"), strings.EqualFold(short, "git~1"):
		return errors.New("it stands for git's own directory")
	}
	return nil
}
