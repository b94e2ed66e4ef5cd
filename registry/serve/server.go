package serve

// server is the registry.
type server struct {
	blobs     *blobStore
	manifests *manifestStore
	uploads   *uploadStore
}
