// Package sandbox runs the command of one RUN step in a container.
//
// # Job
//
// A Process names a root file system that is already mounted, a command and
// its surroundings. Runner.Run makes a libcontainer container of it (runc's
// library, OCI runtime specification 1.3), runs the command, passes its output
// on and leaves nothing behind: no process, no mount, no directory of state
// and no mount point in the root file system.
//
// # Terms
//
//   - Mode: how builds work on this machine, as package isolation finds and enters it.
//   - Mount point: a file or directory of the root file system that something
//     is mounted on. One that the image lacks is made for the run, a stub, and
//     removed afterwards.
//
// # Isolation
//
// As in Docker: new mount, PID, IPC, UTS and cgroup namespaces, a network
// namespace for None and Private; Docker's 14 default capabilities and its default seccomp
// profile; its masked and read-only paths; no_new_privs off, so that su and
// sudo work. Unlike Docker there is no device cgroup, for which bob would have
// to be allowed to make cgroups: only the devices in the container's /dev
// can be opened, since every file system in the container but /dev/pts
// is nodev, or is mounted in a user namespace, which implies it.
//
// Each container gets a user namespace of its own below the one of the entered process,
// with the same IDs: root in it holds no capability over bob, over bob's mounts, over
// other containers, or over a network that it shares with bob. An insecure container
// stays in bob's namespace. The kernel makes no device nodes for such a container: bob does.
//
// # Fallbacks
//
// What the machine refuses is found out by trying, at most once per Runner,
// and replaced as follows. There are no others.
//
//   - A new proc file system, when the outer /proc is partly masked, as in most
//     containers (EPERM): the outer /proc is bound. A command then sees the
//     processes of others. A command without a user namespace of its own can see
//     into processes of other containers, through /proc/PID/environ and
//     /proc/PID/root, since they have the same user and capabilities. It can't see
//     into bob and the user's processes, which have others. A Private process never
//     runs beside such a command.
//   - A new sysfs, which takes a network namespace of the same user namespace: one
//     that bob mounts is bound, read-only, or else the outer /sys.
//   - pivot_root(2), when a seccomp filter refuses it or the root is an
//     initramfs: the root file system is moved over / and chrooted into.
//   - A user namespace below bob's, as when the limit of them is reached: the
//     container stays in bob's, and has no capability over bob's network.
//   - mount_setattr(2), when a seccomp filter refuses it or the kernel lacks it:
//     mounts are restricted one by one by mount(2), with the restrictions that they
//     have already, which the kernel may have locked.
//
// No cgroup file system is needed, wherever it is mounted.
//
// # One ID
//
// Where the user namespace has one user and one group ID, Mode.OneID, a command is
// told by this process what it would be told with all of them (seccomp_unotify(2)):
//
//   - Users and groups: the set*id and get*id calls, setgroups and getgroups answer
//     by the rules of credentials(7), set-ID programs included, for each process and
//     its children. In truth every process stays root.
//   - Owners, modes and devices: chown, chmod, mknod and their like are recorded on
//     the file as package owners does, from where layers take them. What a process
//     makes, by open with O_CREAT, mkdir, symlink or mknod, belongs to the user that
//     it takes itself for, and in a set-group-ID directory to its group.
//   - stat and statx tell what is recorded. With all that, an installation of 90 Debian
//     packages in memory took 27 % more of the processors' time than with many IDs, and
//     1 % longer on a disk; most of it is for stat, which a program that reads back the
//     owners it set can't do without.
//   - Access control lists that name others are taken and forgotten, as layers do.
//
// A path is looked up by the kernel, with the root and the working directory of the
// process that named it, and without following links of /proc, so that nothing
// outside of the container is reached whatever happens to the path meanwhile. What
// can't be looked up, and the calls of 32-bit programs on arm64, are left to
// the kernel.
//
// The limits: no user is kept from what root may do, and each has root's
// capabilities; /proc/PID/status and the peer of a socket show root; a device is an
// empty file when opened; files that openat2, O_TMPFILE or a link that O_CREAT
// follows make belong to root; trusted attributes can't be set, as in other user
// namespaces. Before Linux 5.19 a signal whose handler asks for no restart may interrupt
// an answered call that never is otherwise. /proc/sys/kernel/yama/ptrace_scope must not
// be 3. Linux 5.14 is needed.
//
// # Devices
//
// Where the kernel refuses a command device nodes, which a trial shows, the filter
// notifies of mknod, and this process makes the node as package owners does: a real one
// where it may, else a file with a record. It wants CAP_MKNOD of the caller and looks the
// path up as above, with the user and the groups that the caller has for files. The record
// is a user attribute, so that the filter notifies of setxattr too, to refuse that one to
// callers without CAP_MKNOD. In a chroot the guard answers; it makes only the real
// devices that a container's /dev has. stat isn't answered: commands see a recorded device
// as a file. Linux 5.7 is needed, and no process above may have such a filter. If another
// bob has it, that one makes the devices of the bob below it.
//
// # Not done here
//
// Resolving user names, choosing HOME, mounting the root file system, terminals.
//
// # Kernel
//
// Linux 5.11 or later (overlays in user namespaces), seccomp with filters. The C
// constructor of libcontainer/nsenter runs before main in every process of the binary, and
// acts only on its own environment variables.
//
// What a root file system lacks is made for the run and removed. On an overlay that
// leaves copies of the directories it was made in. Only their ctime has changed, and
// they are no part of what the command did.
package sandbox
