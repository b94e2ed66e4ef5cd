package filecopy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"time"

	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// DigestVersion is hashed first. It changes with the format, and with how a [Sum] is
// computed: whoever remembers digests or sums has it in their names.
const DigestVersion = "bob filecopy 1"

// Digest returns the digest of all that CopyTo would take from the tree:
// of each entry the path relative to what it is copied into, type, permission
// bits, link target, device number, bytes and carried extended attributes, and which
// names become hard links of each other. Not of it are times, owners, and
// the name and metadata of a directory of which the contents are copied, unless
// Source.Itself asks for them.
//
// Every field is framed by its length, so that no two selections have the same
// encoding. A file that isn't as it was selected is ErrChanged.
func (s *Selection) Digest(ctx context.Context) (digest.Digest, error) {
	return s.digest(ctx, false)
}

// DigestWithOwners is Digest with the numeric owners as part of the content:
// for a COPY --from that keeps them.
func (s *Selection) DigestWithOwners(ctx context.Context) (digest.Digest, error) {
	return s.digest(ctx, true)
}

func (s *Selection) digest(ctx context.Context, owners bool) (digest.Digest, error) {
	sums, err := s.sums(ctx)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	enc := &encoder{hash: sha256.New(), owners: owners, sums: sums}
	enc.text(DigestVersion)
	enc.number(uint64(len(s.sources)))
	for _, src := range s.sources {
		if isDir(src.node.mode) {
			enc.text("dir")
			enc.children(src.node, "")
			enc.directoryItself(s, src)
			enc.twins(s.twins(src))
			continue
		}
		enc.text("file")
		enc.node(src.node, src.name)
	}
	return digest.NewDigest(digest.SHA256, enc.hash), nil
}

// directoryItself encodes what src has beside its contents, if that is asked for and
// isn't what directories have as a rule.
func (e *encoder) directoryItself(s *Selection, src *source) {
	n := src.node
	usual := n.mode == unix.S_IFDIR|0o755 && e.sums[n.id] == attributes{}.sum() && (!e.owners || n.uid == 0 && n.gid == 0)
	if s.of.Itself && !usual {
		e.text("itself")
		e.entry(n, "")
	}
}

// sums returns what hasher computes.
func (s *Selection) sums(ctx context.Context) ([]Sum, error) {
	h := &hasher{sums: make([]Sum, s.nodes), memory: s.tree.sums, now: s.tree.now, owners: s.tree.owners}
	err := withWorkers(ctx, func(ctx context.Context, g *errgroup.Group) error {
		h.group = g
		return h.sources(ctx, s)
	})
	if err != nil {
		return nil, err
	}
	s.known.Store(&h.sums)
	return h.sums, nil
}

// Each calls f for each entry below the sources and each source that is a file, with
// its path in the tree and the digest of what [Selection.Digest] has of it alone. It
// stops with the first error, which may be f's.
func (s *Selection) Each(ctx context.Context, f func(path string, sum Sum) error) error {
	known := s.known.Load()
	if known == nil {
		sums, err := s.sums(ctx)
		if err != nil {
			return fmt.Errorf("digest: %w", err)
		}
		known = &sums
	}
	enc := &encoder{hash: sha256.New(), sums: *known}
	twins := make(map[*node]twin)
	var visit func(n *node, name string) error
	visit = func(n *node, name string) error {
		enc.hash.Reset()
		enc.entry(n, "")
		if t, ok := twins[n]; ok {
			enc.twins([]twin{t})
		}
		if err := f(name, Sum(enc.hash.Sum(nil))); err != nil {
			return err
		}
		for _, child := range n.children {
			if err := visit(child, path.Join(name, child.name)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, src := range s.sources {
		entries := []*node{src.node}
		dir := path.Dir(src.rel)
		if isDir(src.node.mode) {
			entries, dir = src.node.children, src.rel
			for _, t := range s.twins(src) {
				twins[t.node] = t
			}
		}
		for _, n := range entries {
			if err := visit(n, path.Join(dir, n.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasher computes, for every node, the sum of its bytes and attributes.
type hasher struct {
	group   *errgroup.Group
	buffers buffers
	sums    []Sum // by node.id; each written by one worker
	memory  Sums  // may be nil
	now     func() time.Time
	owners  owners.Keeper
}

func (h *hasher) sources(ctx context.Context, s *Selection) error {
	for i := 0; i < len(s.sources); {
		src := s.sources[i]
		fd, err := s.tree.enterSource(src)
		if err != nil {
			return err
		}
		if isDir(src.node.mode) {
			i++
			if s.of.Itself {
				if err := h.attributes(fd, src.node); err != nil {
					closeFD(fd)
					return fmt.Errorf("%q: %w", src.rel, err)
				}
			}
			err = h.dir(ctx, fd, src.node, src.rel)
		} else {
			run := filesAlongside(s.sources[i:])
			i += len(run)
			nodes := make([]*node, len(run))
			for j, f := range run {
				nodes[j] = f.node
			}
			err = h.dir(ctx, fd, &node{children: nodes}, path.Dir(src.rel))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// filesAlongside returns the leading files of sources that are in one
// directory, and called differently at the destination.
func filesAlongside(sources []*source) []*source {
	names := make(map[string]bool)
	dir := path.Dir(sources[0].rel)
	for i, src := range sources {
		if isDir(src.node.mode) || path.Dir(src.rel) != dir || names[src.name] {
			return sources[:i]
		}
		names[src.name] = true
	}
	return sources
}

// dir has the files in the open directory fd hashed and descends into its
// directories. It takes fd over.
func (h *hasher) dir(ctx context.Context, fd int, n *node, rel string) (err error) {
	here := newHeld(func() error {
		closeFD(fd)
		return nil
	})
	defer here.release(&err)
	if err := ctx.Err(); err != nil {
		return err
	}
	var files []*node
	for _, child := range n.children {
		if isRegular(child.mode) {
			files = append(files, child)
		}
	}
	for chunk := range chunks(files, func(n *node) int64 { return n.size }) {
		here.retain()
		h.group.Go(func() (err error) {
			defer here.release(&err)
			return h.files(ctx, fd, chunk, rel)
		})
	}
	for _, child := range n.children {
		if !isDir(child.mode) {
			continue
		}
		if err := h.child(ctx, fd, child, path.Join(rel, child.name)); err != nil {
			return err
		}
	}
	return nil
}

func (h *hasher) child(ctx context.Context, parent int, n *node, rel string) error {
	fd, err := enter(parent, n, rel)
	if err != nil {
		return err
	}
	if err := h.attributes(fd, n); err != nil {
		closeFD(fd)
		return fmt.Errorf("%q: %w", rel, err)
	}
	return h.dir(ctx, fd, n, rel)
}

// attributes computes the sum of the open directory n.
func (h *hasher) attributes(fd int, n *node) error {
	a, err := readAttributes(fd, n.mode, h.owners)
	if err != nil {
		return err
	}
	h.sums[n.id] = a.sum()
	return nil
}

func (h *hasher) files(ctx context.Context, dir int, nodes []*node, rel string) error {
	buf := h.buffers.take()
	defer h.buffers.put(buf)
	for _, n := range nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.found(n) {
			continue
		}
		name, now := path.Join(rel, n.name), h.now()
		fd, st, err := openFile(dir, n)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		sum := &fileSum{enc: &encoder{hash: sha256.New()}, node: n, fd: fd, sparse: sparse(&st), owners: h.owners}
		err = sum.run(ctx, *buf)
		closeFD(fd)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		sum.enc.hash.Sum(h.sums[n.id][:0])
		h.keep(n, &st, now)
	}
	return nil
}

// found returns the sum of n if it is remembered.
func (h *hasher) found(n *node) bool {
	if h.memory == nil {
		return false
	}
	sum, ok := h.memory.Find(n.fileID())
	if ok {
		h.sums[n.id] = sum
	}
	return ok
}

// keep remembers the sum of n, which was opened later than now with the status st.
func (h *hasher) keep(n *node, st *unix.Stat_t, now time.Time) {
	if h.memory != nil && n.settled(now) && st.Ino == n.ino && st.Ctim == n.ctime {
		h.memory.Keep(n.fileID(), h.sums[n.id])
	}
}
