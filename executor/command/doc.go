// Package command runs the command of a RUN in a file system that is present. It finds
// the user in the image, and gives the command its mounts, secrets, agents, certificate
// authorities, and the caches that it shares with other commands. A [Runner], such as
// [github.com/bobbuild/bob/executor/sandbox], runs the process itself.
//
// The package knows nothing of keys and results.
package command
