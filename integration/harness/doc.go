// Package harness is the laboratory of the integration tests and benchmarks:
// it builds the binary, finds or makes an unprivileged user, starts a
// registry, makes base images out of Debian packages, and reads images back
// with code that shares nothing with bob.
//
// Terms: a Lab owns everything that a run needs and a directory below which
// all of it lies; a Tree is an image flattened to the files that a container
// would see; a MissingError says what this machine lacks, so that a test can
// skip with a reason.
//
// Images are read by the OCI image specification v1.1 (image layout, layer
// media types, whiteouts). Processes are told apart by a cgroup of version 2
// where the harness is root, else by their environment and mounts in /proc.
package harness
