// Package archive reads and writes images as files: OCI image layouts, which are
// directories or tars, and the archives of docker save.
//
// # Terms
//
//   - A layout has an index.json, which names manifests and indexes, and their blobs by
//     digest.
//   - A docker archive is a tar with a manifest.json. It has neither a manifest nor, as a
//     rule, compressed layers, and it is read as the layout that is made of it.
//
// # Specifications
//
// OCI image-spec v1.1, image layout v1.0; docker's image format v1.2.
//
// # Trust
//
// What is read is not trusted. Every document and blob is verified, no link leads out
// of a layout, and the caller limits how many bytes compressed data may have
// uncompressed.
//
// # Not here
//
// The package unpacks no layer. On disk it leaves only what it writes. It keeps
// temporary files of an archive that it reads until the archive is closed.
package archive
