package transfer

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

const (
	opCopy      = "copy"
	defaultJobs = 4
	// maxDocuments bounds the manifests in the indexes of one copy, bytes.
	maxDocuments = 64 << 20
)

// Options say how [Copy] copies. The zero value copies everything.
type Options struct {
	// Platform picks one image of an index. nil copies the index with all of
	// its images. A docker archive holds one image: then it is this machine's.
	Platform *ocispec.Platform
	// Also are further references to push to when the destination is at a
	// registry.
	Also []string
	// Jobs bounds the blobs that move at once; 0 is 4.
	Jobs int
	// TempDir is where layers of docker archives are while they are compressed
	// and sent; "" is the system's directory for that.
	TempDir string
	// MaxUnpacked is what an archive that is compressed, or a layer in a docker
	// archive, may have uncompressed, in bytes; 0 has no bound.
	MaxUnpacked int64
	// Moving, if set, is told of each blob whose bytes begin to move. It may be
	// called concurrently.
	Moving func(ocispec.Descriptor)
	// Notice, if set, is told in one line of what isn't copied.
	Notice func(string)
}
