// Package owners gives files their owners, modes and device numbers and tells them
// again, also where the kernel can't. For a process that has one user and one group
// ID it keeps a record beside each file; for one with more, a record of each device that
// the kernel doesn't let it make, as in a user namespace.
//
// # Records
//
// A file without a record belongs to 0:0 and has the mode that it has on the disk.
//
//   - Regular files and directories carry the extended attribute
//     user.containers.override_stat in the form of containers/storage,
//     uid:gid:0mode:type, in decimal and the mode in octal. type is file or dir.
//   - A device is a regular file whose record has the type char-MAJOR-MINOR or
//     block-MAJOR-MINOR. What is written to that file counts for nothing.
//   - A recorded mode has on the disk the bits that let this process in added, u+rw
//     or u+rwx, and its set-ID bits taken away. If the disk has another mode than
//     that, someone has changed it since, and that one counts; the owner stays.
//   - Symbolic links, fifos and sockets can't carry user attributes. Their owner is
//     an attribute security.capability of revision 2 (capabilities(7)), which means
//     nothing on such a file: the permitted set is the user, the inheritable set the
//     group. The root of a user namespace may set it. Where it is refused, the time
//     of last access holds the user in seconds after 2^33 and the group in
//     nanoseconds.
//   - The attributes security.capability, on other files, and trusted.* are set in
//     truth where that is allowed, and else recorded under the same name behind
//     "user.bob.".
//
// Records belong to the inode: they survive that the file or a directory above it is
// renamed, that overlayfs copies it up, and hard links.
//
// The record of a device is all that [Devices], [Harmless] and [Stubs] know, as the attribute
// user.bob.device in the same form: owner and mode are then those on the disk.
//
// # Limits
//
// New files below a set-group-ID directory belong to 0:0 and not to its group. What
// writes to a file doesn't take its recorded set-ID bits from it. Without a
// user namespace the owner of a link, fifo or socket is lost when its times are set
// otherwise or on a file system mounted with strictatime; no command runs there.
package owners
