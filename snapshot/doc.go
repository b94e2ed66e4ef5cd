// Package snapshot keeps the content of image builds on the local disk: blobs,
// small records, extracted image layers and the overlay snapshots that build
// steps make, and turns a snapshot back into a layer tar.
//
// # Terms
//
//   - A blob is a file named by its digest, usually a compressed layer.
//   - A record is a small value under a kind and a digest, such as a cache entry.
//   - A snapshot is a committed, immutable directory in overlay format together
//     with the ID of its parent; the file system it stands for is the overlay
//     of it and all its ancestors.
//   - An active snapshot is one being written, mounted at Root; Commit makes it a
//     snapshot, Discard removes it.
//   - A view is a read-only mount of a snapshot.
//   - Overlay format: a removed name is a character device 0:0, a directory that
//     hides those below it carries the extended attribute user.overlay.opaque=y.
//   - A chain ID names a stack of layers, as the OCI image specification 1.1
//     (config.md, "Layer ChainID") defines it. Unpacked image layers have the hex
//     part of their chain ID as snapshot ID, built ones a random ID.
//
// # Layout of the store directory
//
//	blobs/sha256/<hex>                       shared by every ID mapping
//	records/<kind>/<algorithm>/<hex>         likewise
//	tmp/<random>/                            files of one process, not yet renamed
//	ids/<fingerprint>/snapshots/<id>/fs      the layer in overlay format
//	ids/<fingerprint>/snapshots/<id>/meta.json
//	ids/<fingerprint>/active/<random>/{fs,work,mnt}
//	ids/<fingerprint>/garbage/<random>       renamed away, being removed
//	ids/<fingerprint>/locks/<id>             held while a layer is unpacked
//	ids/<fingerprint>/empty                  a lower directory where there is none
//	ids/<fingerprint>/caches/<hex>/<n>/fs    a cache mount, see Store.CacheMount
//
// Files in snapshots have owners as they are on the disk, which differ with the
// mapping of the user namespace. So snapshots live below a fingerprint of
// /proc/self/uid_map and gid_map, while blobs and records are shared.
//
// Everything appears by rename, any number of processes may use a store at once,
// and a process killed at any moment leaves at worst garbage: its directories
// hold a file that it had locked (flock), and the next Open removes those whose
// lock is free. Nothing is synced to the disk on purpose: after a power failure the
// store should be removed.
//
// # Process
//
// The process must be user 0 with all capabilities in its own mount namespace,
// usually below a user namespace. Linux 5.11 is needed for overlay mounts and
// extended attributes (userxattr) in a user namespace, 5.8 for whiteouts, 6.5
// for more than about 200 layers.
//
// # What it does not do
//
// It fetches nothing, it doesn't check blobs against the digest they are asked
// for again, and it deletes nothing by itself, see Store.Prune.
package snapshot
