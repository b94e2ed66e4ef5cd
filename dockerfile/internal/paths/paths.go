// Package paths reads the paths of a Dockerfile as the operating system of the image
// writes them, and returns them with slashes.
package paths

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/util/system"
)

// Windows is the operating system whose paths are written in another way: with
// backslashes or slashes, with or without the drive letter C. Those of all others are
// as on Linux.
const Windows = "windows"

// A Place is where the paths of an instruction are looked up: the working directory, and
// the operating system that they are written for.
type Place struct {
	Dir string // absolute and clean, with slashes
	OS  string
}

// In returns the place that the configuration of an image for os tells of.
func In(dir, os string) Place {
	if os == Windows {
		if normal, err := system.NormalizePath("/", dir, os, false); err == nil {
			dir = normal
		}
	}
	return Place{Dir: path.Join("/", dir), OS: os}
}

// Source returns a path in a context, a stage or an image with slashes.
func (p Place) Source(name string) (string, error) {
	if p.OS != Windows {
		return name, nil
	}
	return system.NormalizePath("/", name, p.OS, false)
}

// Destination returns where a copy goes, with a slash at the end if a directory
// is named.
func (p Place) Destination(dest string) (string, error) {
	if p.OS != Windows {
		return destination(p.Dir, dest), nil
	}
	dest, err := system.CheckSystemDriveAndRemoveDriveLetter(dest, p.OS, true)
	if err != nil {
		return "", err
	}
	if dest == "." || dest == "" {
		dest = "./"
	}
	if dest, err = system.NormalizePath(p.Dir, dest, p.OS, true); err != nil {
		return "", err
	}
	return destination("/", dest), nil
}

// IsAbs reports whether name is an absolute path.
func (p Place) IsAbs(name string) bool { return system.IsAbs(name, p.OS) }

// destination is Destination for a path with slashes, in a directory.
func destination(dir, dest string) string {
	isDir := dest == "" || dest == "." || strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")
	if !path.IsAbs(dest) {
		dest = path.Join(dir, dest)
	}
	dest = path.Clean(dest)
	if isDir && dest != "/" {
		dest += "/"
	}
	return dest
}

// Relative returns a path relative to the root of where it is looked up. Going
// up ends at the root, as everywhere in a file system.
func Relative(name string) string {
	if rel := strings.TrimPrefix(path.Join("/", name), "/"); rel != "" {
		return rel
	}
	return "."
}

// CheckName refuses the name of a file to be made unless it is a single path element.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("%q is no name for a file", name)
	}
	return nil
}
