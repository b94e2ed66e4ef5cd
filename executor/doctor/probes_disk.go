package doctor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// The least that a small image takes: 100 MB, in 10,000 files.
const (
	leastSpace  = 100 << 20
	leastInodes = 10_000
)

// tryDirectory makes a file where the cache is, or would be made.
func tryDirectory(o *probeOrder) outcome {
	dir := existing(o.Dir)
	f, err := os.CreateTemp(dir, ".bob-doctor-")
	switch {
	case errors.Is(err, unix.ENOSPC):
		return refusal(full(dir))
	case err != nil:
		return no("nothing can be written to the cache directory: "+err.Error(), otherPlace)
	}
	defer func() { _ = f.Close() }()
	if err := os.Remove(f.Name()); err != nil {
		return no(err.Error(), otherPlace)
	}
	if _, err := f.Write(bytes.Repeat([]byte{1}, 64<<10)); err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return refusal(full(dir))
		}
		return no("nothing can be written to the cache directory: "+err.Error(), otherPlace)
	}
	return yes(o.Dir)
}

func full(dir string) *obstacle.Obstacle {
	return obstacle.New("the file system of "+dir+" is full", "make room, for example by `bob cache prune`, or "+otherPlace)
}

// trySpace tells how much space and how many inodes are free for this user.
func trySpace(o *probeOrder) outcome {
	dir := existing(o.Dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return no((&os.PathError{Op: "statfs", Path: dir, Err: err}).Error(), otherPlace)
	}
	free := st.Bavail * uint64(st.Bsize)
	detail := units.BytesSize(float64(free)) + " free"
	if st.Files > 0 { // btrfs and others count none
		detail += fmt.Sprintf(", %d inodes", st.Ffree)
	}
	if free < leastSpace || st.Files > 0 && st.Ffree < leastInodes {
		return no("hardly any image fits: "+detail, full(dir).Fix)
	}
	return yes(detail)
}

// tryXattrs sets the attributes that overlays and files of images have and, unless
// owners are recorded, an owner other than the user.
func tryXattrs(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), otherPlace)
	}
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return no(err.Error(), otherPlace)
	}
	if err := unix.Setxattr(dir, "user.overlay.opaque", []byte("y"), 0); err != nil {
		return no("the file system keeps no user attributes, in which overlays note removed directories: "+err.Error(), otherDisk)
	}
	if o.mode.RecordsOwners() {
		return yes("")
	}
	// vfs_cap_data of capabilities(7): revision 2, CAP_NET_RAW permitted.
	capability := binary.LittleEndian.AppendUint32(nil, 0x02000000)
	capability = append(binary.LittleEndian.AppendUint32(capability, 1<<unix.CAP_NET_RAW), make([]byte, 12)...)
	if err := unix.Setxattr(file, "security.capability", capability, 0); err != nil {
		return no("the file system keeps no capabilities of files: "+err.Error(), otherDisk)
	}
	if err := unix.Chown(file, 1, 1); err != nil {
		return no("files can't be given to other users: "+err.Error(), otherDisk)
	}
	return yes("")
}
