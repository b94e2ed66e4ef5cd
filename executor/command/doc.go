// Package command runs the command of a RUN in a file system that is there: as the user
// that the image knows, with the mounts, secrets, agents and certificate authorities that
// it was given, and with caches that it shares with other commands. The process itself is
// run by a [Runner], which is [github.com/bobbuild/bob/executor/sandbox] or one like it.
//
// What the result of a command is remembered by is not known here.
package command
