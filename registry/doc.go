// Package registry talks to image registries: it resolves references to images, pulls
// their blobs, and pushes new ones. What images are made of is package oci's.
//
// # Terms
//
//   - A reference names an image: [host/]repository[:tag][@digest]. Without a
//     host it is Docker Hub's, without a tag it is ":latest".
//   - A mirror is another place that is asked first when an image is pulled. It
//     gets its own host's credentials only, and is never pushed to.
//   - A mount asks a registry to take a blob from another of its own
//     repositories, so that no bytes move.
//
// # Specifications
//
// OCI distribution-spec v1.1; Docker Registry v2 token authentication;
// containers-registries.conf(5) version 2, in part, and containers-auth.json(5).
//
// # Trust
//
// A registry is not trusted. Every manifest, config and layer is checked
// against its digest and its size. Credentials are only ever sent to the registry's own
// host and to the token server it names, never to the host of a redirect, and appear in no
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
// The package keeps nothing on disk. It unpacks no layer and computes none. It needs no
// kernel feature.
package registry
