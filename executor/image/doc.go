// Package image makes what leaves a build, the layers of a result and the documents
// over them, and sends it to its destinations.
//
// # Terms
//
//   - A [Format] is how an image is written: the family of its media types and the
//     compression of its layers.
//   - A [Layer] belongs to a base image or was made by a step. In each compression it is
//     one [Blob], all of the same content.
//   - A [Packer] makes blobs in the store. A blob is promised before it exists: its tar is
//     written, hashed, compressed and uploaded while later steps run.
//   - A [Target] is a repository that blobs and manifests are sent to.
//   - An [Exporter] has all of these, and delivers the result: manifests last, so that a
//     build which fails leaves no tag behind.
//
// Documents follow the OCI image specification v1.1 with Docker's additions, or Docker's
// image manifest version 2, schema 2; history entries are written as BuildKit does.
package image
