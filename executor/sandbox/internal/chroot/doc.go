// Package chroot runs the command of a RUN where root can make neither namespaces nor
// mounts.
//
// A guard, which is bob executed again, starts each command in a chroot, adopts what loses
// its parent there, and kills all that is left, also when bob is gone. What is to be mounted is moved or
// copied into the root file system and back. A command has no_new_privs, the seccomp
// filter, Docker's capabilities but CAP_SYS_CHROOT, with which it could leave, and
// those over the network, with which it could read what bob sends; it makes no real device
// that does harm. Landlock, as far as the kernel has it, keeps it from all other files,
// and from tracing and signalling other processes. Limits tells what is missing.
package chroot
