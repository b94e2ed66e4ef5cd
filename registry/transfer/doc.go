// Package transfer copies and inspects images wherever they are: at registries, in OCI
// image layouts and in docker archives.
//
// # Terms
//
//   - A place is where an image is or is to go, as users write it. See [Copy].
//   - The cargo is all that a copy moves: documents, each after those that it names, and
//     blobs.
//
// # Not here
//
// Package registry speaks to registries, and package archive reads and writes files.
package transfer
