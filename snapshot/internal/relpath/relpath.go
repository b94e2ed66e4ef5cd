// Package relpath handles names as archives have them: relative to a root, with slashes,
// and no longer than a store takes.
package relpath

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// MaxLength is the longest name that an archive's entry may have, in bytes. The kernel takes
// paths of up to 4095.
const MaxLength = 4000

// Why a name is refused.
var (
	errEscape  = errors.New("name leads out of the root directory")
	ErrTooLong = fmt.Errorf("name is longer than %d bytes", MaxLength)
)

// CheckLength refuses names that nobody can unpack: with the directory that they are
// unpacked in before them, the kernel takes them no more.
func CheckLength(name string) error {
	if len(name) > MaxLength {
		return ErrTooLong
	}
	return nil
}

// Brief returns path, shortened in the middle if it is too long to be read.
func Brief(path string) string {
	const most, part = 240, 100
	if len(path) <= most {
		return path
	}
	return path[:part] + "[…]" + path[len(path)-part:]
}

// Clean returns the name of an archive's entry relative to the root, "" for
// the root. Leading slashes mean the root.
func Clean(name string) (string, error) {
	if err := CheckLength(name); err != nil {
		return "", err
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == ".":
		return "", nil
	case clean == "..", strings.HasPrefix(clean, "../"):
		return "", errEscape
	}
	return clean, nil
}

// Split returns the parent and the last element of a clean name.
func Split(name string) (parent, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// Join is the inverse of split.
func Join(parent, base string) string {
	if parent == "" {
		return base
	}
	return parent + "/" + base
}
