// Package serve is the small registry of "bob registry serve": for a first try
// and for tests, on one machine, without authentication.
//
// # Terms
//
//   - A repository has manifests, each named by its digest and by any number of
//     tags, and blobs. It is in the catalog as long as it has a manifest. Its list
//     of tags is there, empty, until the server ends.
//   - A blob lies in one file, however many repositories have it. Each of them has
//     a link to it; who deletes it loses the link, and the last one the file.
//   - A referrer is a manifest whose subject is another one.
//
// # Specification
//
// OCI distribution-spec v1.1.1, all four of its categories: pull, push, content
// discovery and content management. Beyond it there are the catalog of Docker's
// Registry HTTP API V2, cancelling an upload, and the tag parameter of the
// specification's next version. Digests are sha256 or sha512.
//
// # Files
//
//	blobs/ALGORITHM/HEX             a blob
//	links/ALGORITHM-HEX/REPOSITORY  empty: the repository, named by its sum, has the blob
//	manifests/SUM.json              a manifest under one of its names
//	uploads/                        what isn't complete
//
// All appear by rename. A directory without links was written before there
// were any; each repository gets the blobs that its manifests name.
//
// # Not here
//
// Blobs that no manifest names any more stay until they are deleted. Nothing
// is logged.
package serve
