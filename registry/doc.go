// Package registry talks to image registries: it resolves references to
// images, pulls their blobs, pushes new ones, and copies and inspects them, also
// as archives.
//
// # Terms
//
//   - A reference names an image: [host/]repository[:tag][@digest]. Without a
//     host it is Docker Hub's, without a tag it is ":latest".
//   - A manifest lists a config and layers by descriptor (media type, digest,
//     size). An index lists manifests, one for each platform.
//   - A blob is any content that a registry keeps by digest: configs and
//     layers. A layer has two digests: that of its compressed bytes (its
//     blob) and that of the tar inside (its DiffID, named by the config).
//   - A mirror is another place that is asked first when an image is pulled. It
//     gets its own host's credentials only, and is never pushed to.
//   - A mount asks a registry to take a blob from another of its own
//     repositories, so that no bytes move.
//
// # Specifications
//
// OCI distribution-spec v1.1, image-spec v1.1 and the image layout v1.0;
// Docker Registry v2 token authentication; Docker image manifest version 2,
// schema 2; containers-registries.conf(5) version 2, in part, and
// containers-auth.json(5). Schema 1 is refused.
//
// # Trust
//
// A registry is not trusted. Every manifest, config and layer is checked
// against its digest and its size; manifests are bounded to 4 MiB and configs
// to 8 MiB. Credentials are only ever sent to the registry's own host and to
// the token server it names, never to the host of a redirect, and appear in no
// error. https is used for every host but loopback ones unless
// [Options.Insecure] says otherwise.
//
// # Failures
//
// Whatever goes wrong is an [*Error] that names host and repository and says
// what to do. Transient failures are retried with exponential backoff, see package
// patience; downloads continue where they broke, uploads too if the registry can; what
// a mirror fails at goes on at the next place. What arrives damaged is asked for, or
// sent, twice more. A registry that is silent for too long is given up. See [Options].
// Cancelling the context ends everything at once.
//
// # Not here
//
// The package keeps nothing on disk but what it is asked to write, and for as
// long as [Client.Copy] takes the layers of a docker archive. It unpacks no layer
// and computes none; those of docker archives are compressed. It needs no kernel
// feature.
package registry
