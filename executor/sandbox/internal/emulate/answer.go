package emulate

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// answer is what a call returns. The zero value is success.
type answer struct {
	value int64
	errno unix.Errno
	// pass leaves the call to the kernel.
	pass bool
	// sent says that the caller has its answer already.
	sent bool
	// undo is called if the caller doesn't get it.
	undo func()
}

// passed is the answer to whatever is not for the emulation to decide: then the
// kernel finds the same error, or does what needs no other ID.
var passed = answer{pass: true}

// refusal returns the answer for an error of a system call.
func refusal(err error) answer {
	errno := unix.EIO                  // of a damaged record
	if e, ok := err.(unix.Errno); ok { //nolint:errorlint // those are never wrapped here
		errno = e
	}
	return answer{errno: errno}
}

// answerOf returns the answer for a call that returned the error.
func answerOf(err error) answer {
	if err == nil {
		return answer{}
	}
	return refusal(err)
}

// fdPath returns a path of the file of a descriptor of this process.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
