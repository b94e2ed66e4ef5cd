// Package oci knows what registries, layouts and archives hold: manifests, indexes and
// configs, which it reads and verifies, and images, which it finds in them.
//
// # Terms
//
//   - A manifest lists a config and layers by descriptor (media type, digest, size). An
//     index lists manifests, one for each platform. Either is a [Document].
//   - A blob is any content that is kept by digest: configs and layers. A layer has two
//     digests: one of its compressed bytes (its blob) and one of the tar inside (its
//     DiffID, which the config names).
//   - A [Keeper] has documents and blobs.
//
// # Specifications
//
// OCI image-spec v1.1; Docker image manifest version 2, schema 2. Schema 1 is refused.
//
// # Trust
//
// A keeper is not trusted. Every manifest and config is checked against its digest and
// its size; manifests are bounded to 4 MiB and configs to 8 MiB.
//
// # Not here
//
// The package reaches nothing, and neither unpacks nor computes a layer.
package oci
