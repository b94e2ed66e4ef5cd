package dockerfile

import (
	"path"

	"github.com/moby/buildkit/util/system"
)

// windows is the operating system whose paths are written in another way: with
// backslashes or slashes, with or without the drive letter C. Those of all others are
// as on Linux.
const windows = "windows"

// A place is where the paths of an instruction are looked up: the working directory, and
// the operating system that they are written for.
type place struct{ dir, os string }

// place returns where st stands. The directory is absolute and clean, with slashes.
func (st *state) place() place {
	p := place{os: st.image.OS, dir: st.image.Config.WorkingDir}
	if p.os == windows {
		if dir, err := system.NormalizePath("/", p.dir, p.os, false); err == nil {
			p.dir = dir
		}
	}
	p.dir = path.Join("/", p.dir)
	return p
}

// source returns a path in a context, a stage or an image with slashes.
func (p place) source(name string) (string, error) {
	if p.os != windows {
		return name, nil
	}
	return system.NormalizePath("/", name, p.os, false)
}

// destination returns where a copy goes, with a slash at the end if a directory
// is named.
func (p place) destination(dest string) (string, error) {
	if p.os != windows {
		return destination(p.dir, dest), nil
	}
	dest, err := system.CheckSystemDriveAndRemoveDriveLetter(dest, p.os, true)
	if err != nil {
		return "", err
	}
	if dest == "." || dest == "" {
		dest = "./"
	}
	if dest, err = system.NormalizePath(p.dir, dest, p.os, true); err != nil {
		return "", err
	}
	return destination("/", dest), nil
}

// isAbs reports whether name is an absolute path.
func (p place) isAbs(name string) bool { return system.IsAbs(name, p.os) }
