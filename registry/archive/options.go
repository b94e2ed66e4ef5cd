package archive

// Options say how an archive is read. The zero value has no bounds.
type Options struct {
	// TempDir is where archives go that are compressed, and layers while they are
	// compressed; "" is the system's directory for that.
	TempDir string
	// MaxUnpacked is what an archive that is compressed, or a layer in a docker archive,
	// may have uncompressed, in bytes; 0 has no bound.
	MaxUnpacked int64
	// Keep leaves the layers of a docker archive as they are.
	Keep bool
	// DockerTypes gives the image of a docker archive docker's media types and not OCI's.
	DockerTypes bool
}
