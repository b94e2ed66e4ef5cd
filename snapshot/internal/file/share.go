package file

import "golang.org/x/sys/unix"

const (
	// maxOpen is how many files may be open for one purpose, where so many may be.
	maxOpen = 256
	// MinOpen is the same where fewer may be open.
	MinOpen = 16
)

// OpenShare returns how many files may be open for one purpose, of which there are so
// many at once.
func OpenShare(purposes uint64) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return maxOpen
	}
	return int(max(MinOpen, min(maxOpen, limit.Cur/purposes)))
}
