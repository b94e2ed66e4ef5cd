package serve

// Where things lie below the directory of a registry.
const (
	blobsDir     = "blobs"
	linksDir     = "links"
	newLinksDir  = "links.new" // not yet complete
	manifestsDir = "manifests"
	uploadsDir   = "uploads"
)
