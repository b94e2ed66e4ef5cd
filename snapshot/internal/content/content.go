// Package content reads layers of images: it decompresses, checks digests and bounds.
package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
	"syscall"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Layer is a layer of an image, to be unpacked.
type Layer struct {
	// Blob describes the compressed layer. Its digest names the layer in errors.
	Blob ocispec.Descriptor
	// DiffID is the digest of the uncompressed tar; it must be SHA-256.
	DiffID digest.Digest
	// Open returns the compressed bytes from their start; the reader fails in place
	// of io.EOF if they aren't the bytes of Blob, and when ctx ends. It is called
	// concurrently with Open of other layers. If the reader's error has a method
	// Again that returns true, the layer is opened and read once more.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// Waiting, if not nil, is called once if another process, of the given ID, unpacks the
	// layer and this one has waited for it for more than a moment. It may be called
	// concurrently with Waiting of other layers.
	Waiting func(pid int)
}

// Name returns how errors call the layer.
func (l Layer) Name() string {
	if l.Blob.Digest != "" {
		return l.Blob.Digest.String()
	}
	return l.DiffID.String()
}

// StackID returns the ID of the snapshot that unpacking makes of a layer over the
// snapshot parent, "" for nothing. For layers that lie on nothing else it is their
// chain ID.
func StackID(parent string, diffID digest.Digest) string {
	switch len(parent) {
	case 0:
		return diffID.Encoded()
	case digest.SHA256.Size() * 2:
		parent = digest.NewDigestFromEncoded(digest.SHA256, parent).String()
	}
	return digest.FromString(parent + " " + diffID.String()).Encoded()
}

// StackIDs returns the [StackID] of each of the layers, the first of which lies on parent.
func StackIDs(parent string, layers []Layer) []string {
	ids := make([]string, 0, len(layers))
	for _, l := range layers {
		parent = StackID(parent, l.DiffID)
		ids = append(ids, parent)
	}
	return ids
}

// Check refuses a layer that can't be unpacked, whatever its bytes are. What its media
// type says of compression isn't relied on: there are images where it is wrong, and the
// DiffID decides in the end.
func (l Layer) Check() error {
	if err := l.DiffID.Validate(); err != nil {
		return fmt.Errorf("DiffID %q: %w", l.DiffID, err)
	}
	if l.DiffID.Algorithm() != digest.SHA256 {
		return fmt.Errorf("DiffID %s: %w", l.DiffID, digest.ErrDigestUnsupported)
	}
	if strings.HasSuffix(l.Blob.MediaType, "+encrypted") {
		return fmt.Errorf("layer of type %s is encrypted, which is not supported", l.Blob.MediaType)
	}
	return nil
}

// Again reports whether err is the error of a reader that wants to be opened once more.
func Again(err error) bool {
	var reader interface{ Again() bool }
	return errors.As(err, &reader) && reader.Again()
}

// Stream calls take with the uncompressed bytes of the layer and checks their digest. The
// budget bounds how many bytes there may be. A wrong digest is a *DiffIDError.
func (l Layer) Stream(ctx context.Context, budget *bounded.Budget, take func(context.Context, io.Reader) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blob, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	content, err := bounded.Decompress(blob)
	if err != nil {
		return blame(fmt.Errorf("decompress: %w", err), blob)
	}
	ahead := readAhead(content)
	h := &hashing{r: budget.Reader(ahead), hash: sha256.New()}
	stop := sync.OnceFunc(ahead.stop)
	defer func() {
		cancel() // for a reader that waits for the network
		stop()
		err = errors.Join(err, content.Close())
	}()
	if err := take(ctx, h); err != nil {
		stop()
		return blame(err, blob)
	}
	// The DiffID covers what follows the end marker, and a reader that verifies
	// says so at its very end.
	if _, err := io.Copy(io.Discard, h); err != nil {
		stop()
		return blame(fmt.Errorf("read to the end: %w", err), blob)
	}
	if n, err := io.Copy(io.Discard, blob); err != nil {
		return fmt.Errorf("read to the end: %w", err)
	} else if n > 0 {
		return fmt.Errorf("%d bytes follow the compressed stream", n)
	}
	if got := digest.NewDigest(digest.SHA256, h.hash); got != l.DiffID {
		return &DiffIDError{Want: l.DiffID, Got: got}
	}
	return nil
}

// blame returns why a layer can't be taken. Damage shows in many ways before the reader
// of blob, the compressed bytes, says so at its end; if it does, that is why.
func blame(err error, blob io.Reader) error {
	var machine syscall.Errno
	if errors.As(err, &machine) || errors.As(err, new(*bounded.BudgetError)) {
		return err // a full disk, say: what is left needn't be read
	}
	_, said := io.Copy(io.Discard, blob)
	var reader interface{ Again() bool }
	if errors.As(said, &reader) {
		return said
	}
	return err
}

// A DiffIDError says that a layer's content is not what the image says of it.
type DiffIDError struct{ Want, Got digest.Digest }

// Error names both digests.
func (e *DiffIDError) Error() string {
	return fmt.Sprintf("its content has the digest %s, the image says DiffID %s", e.Got, e.Want)
}

// hashing hashes what is read through it.
type hashing struct {
	r    io.Reader
	hash hash.Hash
}

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	return n, err
}
