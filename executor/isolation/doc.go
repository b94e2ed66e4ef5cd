// Package isolation finds how builds work on this machine, its Mode, and enters it.
//
// # Modes
//
// The best is a sandbox: namespaces for bob, in which each RUN gets further ones. Then
// the same with one ID, the user's own; then a chroot of root's without namespaces; then
// none, in which nothing is run. They are found by trying: versions and settings of a
// kernel don't tell what filters and security modules refuse.
//
// # Entering
//
// Entering is the one re-execution of bob into namespaces of its own, [Enter]. Afterwards
// the process is UID 0 with all capabilities there, and mounts that it makes are seen by
// nobody else and vanish with it.
//
// The outer process, which the user has started, only waits, forwards signals and exits
// with the inner one's status. It, and an inner one that is refused something before it
// has arrived, call os.Exit, since nothing else is left to do.
//
// # Kernel
//
// User namespaces unless run as root. The C constructor of containers/storage/pkg/unshare
// runs before main in every process of the binary, and acts only on its own environment
// variables.
package isolation
