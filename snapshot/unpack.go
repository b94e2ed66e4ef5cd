package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
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
	// Waiting, if not nil, is called once if another process is at unpacking the layer
	// and this one waits for it for more than a moment. It may be called concurrently
	// with Waiting of other layers.
	Waiting func(pid int)
}

// name returns how errors call the layer.
func (l Layer) name() string {
	if l.Blob.Digest != "" {
		return l.Blob.Digest.String()
	}
	return l.DiffID.String()
}

// Unpack makes the snapshot of the given layers, base first, and the snapshots of all
// stacks below it, except what the store has: each is made once, whoever
// asks for it in this or another process. Up to jobs layers (0: as many as there
// are processors) are opened and extracted at once. A layer whose DiffID turns
// out wrong leaves nothing behind. Without layers it returns nil, which stands for
// an empty file system.
func (s *Store) Unpack(ctx context.Context, layers []Layer, jobs int) (*Snapshot, error) {
	return s.UnpackOver(ctx, nil, layers, jobs)
}

// StackID returns the ID of the snapshot that [Store.UnpackOver] makes of a layer over
// the snapshot parent, "" for none. For layers that lie on nothing else it is their
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

// UnpackOver is [Store.Unpack] of layers that lie on parent, which may be nil. Without
// layers it returns parent.
func (s *Store) UnpackOver(ctx context.Context, parent *Snapshot, layers []Layer, jobs int) (*Snapshot, error) {
	if len(layers) == 0 {
		return parent, nil
	}
	ids := make([]string, 0, len(layers))
	below := parentID(parent)
	for _, l := range layers {
		if err := l.DiffID.Validate(); err != nil {
			return nil, fmt.Errorf("unpack layer %s: DiffID %q: %w", l.name(), l.DiffID, err)
		}
		if l.DiffID.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("unpack layer %s: DiffID %s: %w", l.name(), l.DiffID, digest.ErrDigestUnsupported)
		}
		if err := checkMediaType(l.Blob.MediaType); err != nil {
			return nil, fmt.Errorf("unpack layer %s: %w", l.name(), err)
		}
		below = StackID(below, l.DiffID)
		ids = append(ids, below)
	}
	if s.indexed() {
		return s.index(ctx, parentID(parent), layers, jobs)
	}
	return s.unpack(ctx, parentID(parent), layers, ids, jobs)
}

// unpack unpacks layers, whose snapshots get the ids, over the snapshot parent.
func (s *Store) unpack(ctx context.Context, parent string, layers []Layer, ids []string, jobs int) (*Snapshot, error) {
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	u := &unpacking{store: s, slots: semaphore.NewWeighted(int64(jobs)), begun: semaphore.NewWeighted(int64(file.OpenShare(16)))}
	present := u.present(ids)
	group, gctx := errgroup.WithContext(ctx)
	settled := make(chan struct{})
	close(settled)
	for i := present; i < len(layers); i++ {
		// Slots are taken base first: a layer waits for those below it, which
		// then always have one.
		if u.begun.Acquire(gctx, 1) != nil || u.slots.Acquire(gctx, 1) != nil {
			break
		}
		j := job{layer: layers[i], id: ids[i], parent: parent, below: settled, done: make(chan struct{})}
		if i > 0 {
			j.parent = ids[i-1]
		}
		settled = j.done
		group.Go(func() error {
			defer u.begun.Release(1)
			if err := u.run(gctx, j); err != nil {
				return fmt.Errorf("unpack layer %s: %w", j.layer.name(), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("unpack: %w", context.Cause(ctx))
	}
	return s.Snapshot(ids[len(ids)-1])
}

// unpacking is one call of Unpack.
type unpacking struct {
	store *Store
	slots *semaphore.Weighted // for opened layers
	begun *semaphore.Weighted // for layers that aren't snapshots yet: each has files open
}

// job is the unpacking of one layer.
type job struct {
	layer      Layer
	id, parent string
	below      <-chan struct{} // closed when the parent is a snapshot
	done       chan struct{}   // closed when this is one
}

// present returns how many layers the store has, from the base.
func (u *unpacking) present(ids []string) int {
	for n := len(ids); n > 0; n-- {
		if u.store.isUnpacked(ids[n-1]) == nil {
			return n
		}
	}
	return 0
}

// run makes the snapshot of j. The caller has taken a slot, which run gives back.
func (u *unpacking) run(ctx context.Context, j job) error {
	release := func() { u.slots.Release(1) }
	defer func() { release() }()
	unlock, err := locks.Wait(ctx, filepath.Join(u.store.own("locks"), j.id), j.layer.Waiting)
	if err != nil {
		return err
	}
	defer unlock()
	if err := u.store.isUnpacked(j.id); err == nil {
		close(j.done) // another process was quicker
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, x, err := u.extract(ctx, j.layer)
	if err != nil {
		return err
	}
	defer x.Close()
	release() // what follows is short, or waiting for those that need a slot
	release = func() {}
	select {
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), u.store.discard(c))
	case <-j.below:
	}
	if err := u.finish(ctx, c, x, j); err != nil {
		return errors.Join(err, u.store.discard(c))
	}
	close(j.done)
	return nil
}

// extract extracts l into a claim of its own, as often as its reader asks for.
func (u *unpacking) extract(ctx context.Context, l Layer) (*locks.Claim, *layertar.Layer, error) {
	for {
		c, err := locks.NewClaim(u.store.own("active"))
		if err != nil {
			return nil, nil, err
		}
		x, err := u.store.extractLayer(ctx, c, l)
		if err == nil {
			return c, x, nil
		}
		if discarded := u.store.discard(c); discarded != nil || !again(err) {
			return nil, nil, errors.Join(err, discarded)
		}
	}
}

// again says whether err is a reader's that wants to be opened once more.
func again(err error) bool {
	var reader interface{ Again() bool }
	return errors.As(err, &reader) && reader.Again()
}

// finish settles the extracted layer and makes it a snapshot.
func (u *unpacking) finish(ctx context.Context, c *locks.Claim, x *layertar.Layer, j job) error {
	var lower []string
	if j.parent != "" {
		parent, err := u.store.Snapshot(j.parent)
		if err != nil {
			return err
		}
		lower = parent.layers
	}
	opaque, err := x.Settle(ctx, lower)
	if err != nil {
		return err
	}
	_, err = u.store.keep(c, j.id, meta{Parent: j.parent, Opaque: opaque})
	return err
}

// extractLayer extracts l by itself into the directory fs of c and checks its
// DiffID. The caller closes the tree of the extractor.
func (s *Store) extractLayer(ctx context.Context, c *locks.Claim, l Layer) (*layertar.Layer, error) {
	root := filepath.Join(c.Path, "fs")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	budget := bounded.NewBudget(s.opts.MaxUnpacked)
	x, err := layertar.NewLayer(root, s.Owners(), s.marks, budget)
	if err != nil {
		return nil, err
	}
	if err := streamLayer(ctx, l, budget, x.Extract); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

// streamLayer has take read the uncompressed bytes of l, of which the budget bounds how
// many there may be, and checks their digest.
func streamLayer(ctx context.Context, l Layer, budget *bounded.Budget, take func(context.Context, io.Reader) error) (err error) {
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

// A DiffIDError is that a layer's content is not what the image says of it.
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

// checkMediaType refuses layers that the first bytes of the stream can't make
// readable. What the type says of compression isn't relied on: there are images
// where it is wrong, and the DiffID decides in the end.
func checkMediaType(mediaType string) error {
	if strings.HasSuffix(mediaType, "+encrypted") {
		return fmt.Errorf("layer of type %s is encrypted, which is not supported", mediaType)
	}
	return nil
}
