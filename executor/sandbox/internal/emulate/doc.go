// Package emulate answers system calls of a container in the kernel's place: those
// that take other user and group IDs than the one that its user namespace has. See
// package sandbox for what that looks like from inside.
//
// # How
//
// The container's seccomp filter notifies of the calls (seccomp_unotify(2), Linux
// 5.0). A few workers, each a thread of its own, wait for them together; one call is
// answered by one worker. It copies the arguments from the caller's memory once,
// opens what they name, asks whether the caller still waits, and only then acts on
// what it opened. So a process ID that has become another's, or a path that has
// become another file's, does no harm.
//
// To look up a path the worker gives its own thread the root and the working
// directory of the caller for a moment. A call that needs no answer, or whose path
// can't be opened, goes on to the kernel; nothing is decided by what a second look
// at the caller's memory might find changed.
//
// What a process takes itself for is not kept by process ID. A number of it is the
// soft RLIMIT_LOCKS of the process, which the kernel hands on as it does IDs, by fork
// and execve, and which has had no other meaning since Linux 2.4. The container
// can neither see nor set that limit.
//
// A caller that is killed or interrupted before it has its answer hasn't made the
// call: what was made is removed again, and what it took itself for is restored.
package emulate
