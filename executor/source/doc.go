// Package source is what a build reads: images of a registry or in an OCI image layout,
// repositories and files by address, and directories of this machine.
//
// Everything is looked up before it is fetched. What an image, a repository or a file is,
// is known by one or two requests; its files become present in the store when they are
// needed for the first time, and later builds find them there. Each thing is asked for
// once, however many steps read it: see package executor/memo.
//
// # Records
//
// The store remembers under keys that name what was asked for:
//
//   - the version of each downloaded file, with the snapshot that holds it
//   - the snapshot of each commit that was checked out of a repository
//   - the digests of the files of each directory, so that one that hasn't changed since
//     an earlier build isn't read again
package source
