// Package source reads the sources of a build: images of a registry or in an OCI image
// layout, repositories and files by address, and directories of this machine.
//
// A source is resolved before it is fetched, by one or two requests. Its files become
// present in the store when they are first needed, and later builds find them there.
// Each source is resolved once, however many steps read it: see package executor/memo.
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
