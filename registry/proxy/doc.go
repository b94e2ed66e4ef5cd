// Package proxy lets programs without credentials push to and pull from two
// repositories. It speaks the registry protocol on both sides: to its client,
// which is not trusted, as "base" and "target"; to the real registries with the
// credentials that only it knows.
//
// # Terms
//
//   - An alias is the name, base or target, by which the client knows a
//     repository. The reference behind it holds host, repository, and a tag or a
//     digest.
//   - A mirror request names the registry that it is meant for in its query
//     (ns=HOST), as containerd asks mirrors. It reads only.
//   - The login is what the proxy knows for a registry; the token what a
//     registry's token server gave for it.
//
// # What is passed on
//
//	GET, HEAD               /v2/                                          answered here
//	GET, HEAD, PUT          /v2/ALIAS/manifests/TAG, /v2/ALIAS/manifests/DIGEST
//	GET, HEAD               /v2/ALIAS/blobs/DIGEST
//	POST                    /v2/ALIAS/blobs/uploads/
//	GET, PATCH, PUT, DELETE /v2/ALIAS/blobs/uploads/ID
//	GET, HEAD               /v2/NAME/{manifests,blobs}/…?ns=HOST          mirror requests
//
// Everything else is answered with 404. That holds for the catalog, for the
// deletion of manifests and blobs, and for lists of tags and of referrers too,
// which neither a push nor a pull needs. Paths are compared as they came: a path
// that is escaped or not in its shortest form is another one.
//
// The client may say any tag, what is asked for is the reference's. A manifest
// by digest is passed on when the proxy has seen it: pushed or pulled through
// it, or listed by an index that was. No query of the client's is passed on but
// the digest that ends an upload and a mount from the other alias, whose name is
// replaced; any other mount, and a POST with a digest, becomes the start of an
// upload, as the distribution-spec permits.
//
// Headers are passed on by list, both ways: authorisation, cookies, challenges
// and whatever belongs to one connection are on none of them.
//
// # Where uploads and redirects go
//
// A registry may send an upload to any URL. The client gets a path of the proxy's
// with a random ID in place of it, so it can't choose where its requests go.
// Redirects within the registry's host are followed here; one to another host, as
// registries give for blobs in an object store, is the client's to follow: that URL
// carries its own signature, works without the proxy's credentials, and the bytes of
// layers needn't pass through here. No credential is ever sent to another host
// than the registry's and its token server's.
//
// What a client or a registry names by itself, a host that no credential names in a
// mirror request, or another host for uploads or tokens, may not be at an address of
// this machine, its link or its cloud's metadata service (package nearby). The
// address is checked as it is dialed. Behind an HTTP proxy of the environment, whose
// own address may be any, it is checked as far as it is known here. Only a registry at
// a loopback address that the references or the credentials name may name others
// there.
//
// # Streams
//
// Blobs pass through in constant memory. They are never kept, so a request with a
// blob in it can't be repeated here: the token is renewed ahead of its end, and the
// registry is asked (Expect: 100-continue) before the first byte is read. If the
// registry asks for another token all the same, the client is told to come
// again (503 with Retry-After). How long a registry may be silent is the client's to
// decide: when it goes away, so does what was asked for it.
//
// # Specifications
//
// OCI distribution-spec v1.1; Docker Registry v2 token and OAuth2 authentication;
// containerd's mirror protocol (ns).
//
// # Not here
//
// The package listens nowhere, keeps nothing on disk and caches nothing. It checks only the
// digests of manifests that are pushed: its client checks what it gets, and the registry
// checks what it is sent.
package proxy
