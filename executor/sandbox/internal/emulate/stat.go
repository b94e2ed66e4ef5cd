package emulate

import (
	"golang.org/x/sys/unix"
)

// A statLayout returns the status of a file as programs of an architecture have it, or
// EOVERFLOW if it doesn't fit in there.
type statLayout func(st *unix.Stat_t) ([]byte, unix.Errno)

// nativeStat is the layout of bob's own architecture.
func nativeStat(st *unix.Stat_t) ([]byte, unix.Errno) { return bytesOf(st), 0 }
