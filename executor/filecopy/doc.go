// Package filecopy has the file semantics of the Dockerfile's COPY, ADD of
// local files, heredocs and WORKDIR: from a directory, the build context or the
// mounted root of an image, into the mounted root of the step being built.
//
// # Terms
//
// A tree is the directory that is read, less what its ignore patterns exclude.
// A source of the Dockerfile stands for one file, or one directory of which the
// contents are meant, or as a wildcard for any number of them. A selection is what
// a source stands for, as it was at one moment: its digest is the cache key's
// part, and the copy is checked against it. The root is the directory written to, the destination a path in it.
//
// # Rules
//
// They are those of BuildKit v0.34 (the Dockerfile reference is silent on most
// of them; github.com/tonistiigi/fsutil/copy decides). What is made at the
// destination:
//
//	destination as written           source              result
//	----------------------           ------              ------
//	ends with / or /.                any                 a directory; made if missing
//	a directory                      file, link          destination/name of the source as written
//	a directory                      directory           its contents, merged
//	missing                          file, link          the destination itself
//	missing                          directory           a directory with its contents
//	a file                           file, link          the file is replaced, not written to
//	a file                           directory           error: cannot copy to non-directory
//	a link                           any                 as for its target, which is made if missing
//	a file, but / wanted             any                 error: cannot copy to non-directory
//
// What becomes of a name that exists inside the destination:
//
//	there                    source          result
//	-----                    ------          ------
//	nothing                  any             made
//	directory                directory       merged; mode, owner, times, attributes become the source's
//	directory                anything else   error: cannot replace a directory with a file
//	file, link, fifo, …      directory       error: cannot copy to non-directory, links included
//	file, link, fifo, …      anything else   replaced; hard links of the old file keep their content
//
// Metadata:
//
//	of what                          mode             owner               modification time
//	-------                          ----             -----               -----------------
//	copied files and directories     --chmod, or own  Owner, or own       own, to the nanosecond
//	parents of what is copied        --chmod, or own  Owner, or own       now
//	such a parent, if it existed     own              kept                now
//	copied links                     -                Owner, or own       own
//	the destination, if it existed   kept             kept                of the source directory; kept for files
//	the destination, if made         0755 or --chmod  Owner, or process   the same
//	the same of a directory itself   --chmod, or own  Owner, or own       the same
//	directories made on the way      0755 or --chmod  Owner, or process   now
//	heredocs                         0644 or --chmod  Owner, or process   now
//
// The root of a tree has no time: what its contents go to has the present one.
// Parents are those of --parents, below the source. Set-ID and sticky bits are
// kept. Of an octal --chmod, directories made on the way take the lower nine
// bits, of a symbolic one nothing; those made for an archive have 0755. A
// directory itself is that of a repository (Source.Itself). The umask has no
// influence. Access times are left to the kernel. Extended attributes security.capability and user.* are copied where
// the file system has them, others (labels, access control lists, the records of
// overlayfs) are not.
//
// Sources:
//
//	source                           result
//	------                           ------
//	../x, /x                         x: names are confined to the tree
//	a link                           its target, resolved as if the tree's root were /
//	a dangling link                  error: not found
//	a link inside a directory        the link, as it is
//	missing, or excluded             error: not found, with the pattern that excludes it
//	a wildcard without matches       nothing
//	names of one file in a directory hard links of each other, also at the destination
//	names of one file by a wildcard  files of their own
//	sparse files                     sparse
//	a fifo                           a fifo; it is never opened
//	a device                         a device, if the kernel lets the process make one
//	a socket inside a directory      left out
//	a socket                         error
//	anything that changes meanwhile  ErrChanged
//
// The matches of a wildcard are copied in turn: to a destination that is no
// directory each replaces the one before.
//
// Names that a link skips with ".." are not made at the destination: "gone/../x"
// leads to x.
//
// BuildKit differs in these. It makes an empty file of a socket. It doesn't look
// into an excluded directory for an exception that ends in two wildcards
// ("a/*/**"), yet fails if a file is in such a directory's place at the
// destination. It takes "x/.." out of a link without asking whether x is a link
// itself, and of a destination ending in "/." follows a second link wrongly.
// Below a set-group-ID directory, directories made for a context's files get that
// group. "COPY --parents */./x" takes the files that match "*" along if they are
// in a stage. The destination of a tree's root gets the time that the root
// happens to have.
//
// # Confinement
//
// No path is ever given to the kernel as a string of several components: every
// name is opened from the descriptor of its directory without following a link
// (openat(2) with O_NOFOLLOW), links are read and followed by the package, and
// ".." goes back to the descriptor that the way came from. Neither a link in a
// tree or an image nor one put there during the copy leads out. openat2(2) would
// save little, can't make what a dangling link asks for, and is refused by the
// seccomp filters of older container engines.
//
// # Limits
//
// The package doesn't resolve user names, fetch URLs or interpret archives (see
// Unpack). It needs Linux; copy_file_range(2),
// SEEK_HOLE and extended attributes are used where they exist. A file that is
// rewritten with the same size and modification time isn't noticed.
package filecopy
