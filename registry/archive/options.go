package archive

// Options say how an archive is read. The zero value has no bounds.
type Options struct {
	// TempDir is the directory for the content of compressed archives, and for layers
	// while they are compressed; "" is the system's.
	TempDir string
	// MaxUnpacked is the greatest uncompressed size of a compressed archive, and of a
	// layer in a docker archive, in bytes; 0 is no limit.
	MaxUnpacked int64
	// Keep leaves the layers of a docker archive as they are.
	Keep bool
	// DockerTypes gives the image of a docker archive docker's media types in place of
	// OCI's.
	DockerTypes bool
}
