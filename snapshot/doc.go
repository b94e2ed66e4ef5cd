// Package snapshot keeps the content of image builds on the local disk: blobs,
// small records, extracted image layers and the snapshots that build steps make,
// and turns a snapshot back into a layer tar.
//
// # Terms
//
//   - A blob is a file named by its digest, usually a compressed layer.
//   - A record is a small value under a kind and a digest, such as a cache entry.
//   - A snapshot is a committed, immutable directory in overlay format together
//     with the ID of its parent; the file system it stands for is the overlay
//     of it and all its ancestors.
//   - An active snapshot is one being written, below Root; Commit makes it a
//     snapshot, Discard removes it.
//   - A view is a snapshot to be read.
//   - A snapshotter makes one file system of a snapshot and its ancestors: a mount,
//     or a checkout, which is a directory with copies of all files.
//   - Overlay format: a removed name is a character device 0:0, a directory that
//     hides those below it carries the extended attribute user.overlay.opaque=y.
//     Where the disk takes no such device, which is so in a container whose own
//     files lie on an overlay, these marks are files: .wh.NAME and .wh..wh..opq.
//   - A chain ID names a stack of layers, as the OCI image specification 1.1
//     (config.md, "Layer ChainID") defines it. Unpacked image layers have the hex
//     part of their chain ID as snapshot ID, built ones a random ID.
//
// # Layout of the store directory
//
//	blobs/sha256/<hex>                       shared by every ID mapping
//	records/<kind>/<algorithm>/<hex>         shared, too
//	tmp/<random>/                            files of one process, not yet renamed
//	synced/<boot>                            up to when what this boot wrote is on the disk
//	.use                                     locked by who marks something as used, or removes
//	.try-<n>, .bob-doctor-<n>                what processes try before they open it, locked meanwhile
//	ids/<fingerprint>/snapshots/<id>/fs      the layer in overlay format
//	ids/<fingerprint>/snapshots/<id>/meta.json  its time is that of the last use
//	ids/<fingerprint>/active/<random>/{fs,work,mnt}  mnt is a mount or a checkout
//	ids/<fingerprint>/garbage/<random>       renamed away, being removed
//	ids/<fingerprint>/locks/<id>             held while a layer is unpacked
//	ids/<fingerprint>/empty                  a lower directory where there is nothing
//	ids/<fingerprint>/caches/<hex>/<n>/fs    a cache mount, see Store.CacheMount
//
// Files in snapshots have owners as they are on the disk, which differ with the
// mapping of the user namespace. So snapshots live below a fingerprint of
// /proc/self/uid_map and gid_map, while blobs and records are shared. Where marks
// are files, "-marks" is added to the fingerprint: the kernel's overlay can't use it.
//
// Everything appears by rename, any number of processes may use a store at once,
// and a process killed at any moment leaves at worst garbage: its directories
// hold a file that it had locked (flock), and the next Open removes those whose
// lock is free. No build waits for the disk. What must be whole says in which boot of the
// machine, and when, it was written. [Sync] brings the store to the disk and remembers up
// to when; after a power failure what is newer counts as absent.
//
// # Packages
//
// This package puts the rest together. A [Store] has what it keeps for the ID mapping of
// its process. [Open] chooses by the [Options] what finds snapshots, which may all lie
// on the disk or not, and the snapshotter. Below internal, each thing that is kept has a
// package: blobs, records, cachemounts and committed snapshots. They stand on usage (who
// uses what), durable (what has survived), trash (what is being removed) and locks;
// pruning lists and removes what they keep. The file systems are overlay (mounts),
// checkout (copies) and underlay with tree (indexes). content reads layers, layertar is
// between tars and directories, layers looks things up in directories of overlay format,
// and file, descent, relpath and idmap are about single files.
//
// # Copies
//
// With [Copy] an active snapshot is a checkout of its parent. Commit compares what
// the kernel says of its files (inode, time of birth, ctime and the like) with what
// it said before the step, and copies to the layer what has changed; contents are
// read only of a file that has lost one of several names. So that every change
// moves a ctime, a checkout is handed out when the clock of its file system has
// passed all that are in it. The checkout is then one of the new snapshot, and the
// next step on that goes on with it: a chain of steps is copied once. Views of a
// snapshot share a checkout. Nothing keeps a reader from writing to one.
//
// With [Options.RecordOwners] the fingerprint ends in "-recorded", and owners are
// kept as the package owners says. With [Index] image layers are records and no
// snapshots: the entries of a layer's tar by its DiffID, and which layer lies on which
// by the snapshot's ID. They become snapshots when their files are read.
//
// # Process
//
// To mount overlays the process must be user 0 with all capabilities in its own
// mount namespace, usually below a user namespace. Linux 5.11 is needed for overlay
// mounts and extended attributes (userxattr) in a user namespace, 5.8 for
// whiteouts. More layers than an overlay takes, 500 or before Linux 6.5 some 200, are
// copied into one directory as far as need be. [FuseOverlay] needs the program
// fuse-overlayfs and /dev/fuse, but Linux 4.18 only. Copies need neither mounts nor
// CAP_SYS_ADMIN, but CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP
// and, for device nodes, CAP_MKNOD.
//
// # What it does not do
//
// It fetches nothing, it doesn't check blobs against the digest they are asked
// for again, and it deletes nothing by itself, see Store.Prune.
package snapshot
