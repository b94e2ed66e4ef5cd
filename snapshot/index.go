package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A store with the snapshotter Index keeps of an image's layer what its tar says of
// each file, and content only of those that name accounts. The index of a layer is a
// record under its DiffID; which layer a snapshot is, is another one under its ID.
const (
	indexKind = "layer-index-1"
	stackKind = "layer-stack-1"
)

// indexEntry is an entry of a layer's tar.
type indexEntry struct {
	Name, Link string
	Type       byte
	Mode       uint32
	UID, GID   int
	Mtime      unix.Timespec
	Xattrs     map[string]string // that archives hold
	Data       []byte            // of a file that names accounts
}

// stackRecord says that a snapshot is a layer over another one.
type stackRecord struct {
	Parent string
	DiffID digest.Digest
	Blob   digest.Digest `json:",omitempty"` // that it was read from; the store may hold it
}

// maxAccounts is how many bytes of a file that names accounts go into an index.
const maxAccounts = 1 << 20

// maxHeld is how many bytes of such files an index holds. Others are read from the
// layer, which is unpacked for it.
const maxHeld = 16 << 20

// namesAccounts reports whether a file may be one that names are looked up in.
func namesAccounts(hdr *tar.Header) bool {
	base := path.Base(hdr.Name)
	return hdr.Typeflag == tar.TypeReg && hdr.Size <= maxAccounts && (base == "passwd" || base == "group")
}

// indexed reports whether image layers are indexed and not unpacked.
func (s *Store) indexed() bool { return s.opts.Snapshotter == Index }

// Offer tells the store where the layers of an image are, base first, that it may
// have to unpack after all. Only a store with the snapshotter [Index] has use for it.
func (s *Store) Offer(layers []Layer) { s.offer("", layers) }

func (s *Store) offer(below string, layers []Layer) {
	for _, l := range layers {
		below = StackID(below, l.DiffID)
		s.offers.Store(below, l)
	}
}

// index is UnpackOver for a store that indexes.
func (s *Store) index(ctx context.Context, parent string, layers []Layer, jobs int) (*Snapshot, error) {
	s.offer(parent, layers)
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	below := parent
	for _, l := range layers {
		rec := stackRecord{below, l.DiffID, l.Blob.Digest}
		below = StackID(below, l.DiffID)
		id := below
		group.Go(func() error {
			if err := s.indexLayer(gctx, l); err != nil {
				return fmt.Errorf("index layer %s: %w", l.name(), err)
			}
			value, err := json.Marshal(rec)
			if err == nil {
				err = s.PutRecord(stackKind, digest.NewDigestFromEncoded(digest.SHA256, id), value)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return s.Snapshot(below)
}

// indexLayer makes the index of l, unless the store has it.
func (s *Store) indexLayer(ctx context.Context, l Layer) error {
	if _, err := s.Record(indexKind, l.DiffID); err == nil {
		return nil
	}
	entries, err := s.readEntries(ctx, l)
	for again(err) {
		entries, err = s.readEntries(ctx, l)
	}
	if err != nil {
		return err
	}
	if _, err := layerTree(entries); err != nil {
		return err
	}
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		return err
	}
	if err := errors.Join(gob.NewEncoder(z).Encode(entries), z.Close()); err != nil {
		return err
	}
	return s.PutRecord(indexKind, l.DiffID, b.Bytes())
}

// readEntries reads the index of l.
func (s *Store) readEntries(ctx context.Context, l Layer) (entries []indexEntry, err error) {
	var held int64 // bytes of files
	budget := bounded.NewBudget(s.opts.MaxUnpacked)
	err = streamLayer(ctx, l, budget, func(ctx context.Context, r io.Reader) error {
		tr := tar.NewReader(r)
		for {
			hdr, err := tr.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
				return fmt.Errorf("read tar header: %w", err)
			}
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if hdr.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			if err := budget.TarEntry(hdr); err != nil {
				return fmt.Errorf("index %q: %w", hdr.Name, err)
			}
			e, err := newIndexEntry(hdr)
			if err == nil && namesAccounts(hdr) && held+hdr.Size <= maxHeld {
				held += hdr.Size
				e.Data, err = io.ReadAll(tr)
			}
			if err != nil {
				return fmt.Errorf("index %q: %w", hdr.Name, err)
			}
			entries = append(entries, e)
		}
	})
	return entries, err
}

func newIndexEntry(hdr *tar.Header) (indexEntry, error) {
	a, err := layertar.HeaderAttrs(hdr)
	if err == nil {
		err = layertar.CheckOwner(a)
	}
	if err != nil {
		return indexEntry{}, err
	}
	return indexEntry{
		Name: hdr.Name, Link: hdr.Linkname, Type: hdr.Typeflag,
		Mode: a.Mode, UID: a.UID, GID: a.GID, Mtime: a.Mtime, Xattrs: a.Archived().Xattrs,
	}, nil
}

// readIndex returns the tree of the layer diffID.
func (s *Store) readIndex(diffID digest.Digest) (*layerNodes, error) {
	b, err := s.Record(indexKind, diffID)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var entries []indexEntry
	if err := gob.NewDecoder(z).Decode(&entries); err != nil {
		return nil, fmt.Errorf("index of layer %s: %w", diffID, err)
	}
	return layerTree(entries)
}

// stackOf returns which layer the snapshot id is, if that is indexed; else
// fs.ErrNotExist.
func (s *Store) stackOf(id string) (stackRecord, error) {
	var rec stackRecord
	if !s.indexed() || len(id) != digest.SHA256.Size()*2 { // random IDs are shorter
		return rec, fs.ErrNotExist
	}
	b, err := s.Record(stackKind, digest.NewDigestFromEncoded(digest.SHA256, id))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	var index string
	if err == nil {
		index, err = s.recordPath(indexKind, rec.DiffID)
	}
	if err == nil {
		err = s.use(index)
	}
	return rec, err
}

// unpacked returns sn with all layers unpacked.
func (s *Store) unpacked(ctx context.Context, sn *Snapshot) (*Snapshot, error) {
	var ids []string // of what is only indexed, top first
	for id := sn.id; id != ""; {
		if _, err := s.readMeta(id); err != nil {
			ids = append(ids, id)
		}
		var err error
		if id, err = s.parentOf(id); err != nil {
			return nil, err
		}
	}
	slices.Reverse(ids)
	for len(ids) > 0 {
		below, err := s.parentOf(ids[0])
		if err != nil {
			return nil, err
		}
		var layers []Layer
		for parent := below; len(layers) < len(ids); parent = ids[len(layers)-1] {
			id := ids[len(layers)]
			if on, err := s.parentOf(id); err != nil || on != parent {
				break
			}
			rec, err := s.stackOf(id)
			if err != nil {
				return nil, err
			}
			l, ok := s.whereIs(id, rec)
			if !ok {
				return nil, fmt.Errorf("layer %s is only indexed, and its blob is gone: build again", id)
			}
			layers = append(layers, l)
		}
		if _, err := s.unpack(ctx, below, layers, ids[:len(layers)], 0); err != nil {
			return nil, err
		}
		ids = ids[len(layers):]
	}
	return s.Snapshot(sn.id)
}

// whereIs returns the layer that the only indexed snapshot id is, to be unpacked: as it
// was offered or else, as the results of steps are that came from a cache elsewhere, in
// the store itself. ok says whether it is anywhere.
func (s *Store) whereIs(id string, rec stackRecord) (l Layer, ok bool) {
	if l, ok := s.offers.Load(id); ok {
		return l.(Layer), true //nolint:forcetypeassert // nothing else is stored
	}
	if rec.Blob.Validate() != nil || s.use(s.blobPath(rec.Blob)) != nil {
		return l, false
	}
	l = Layer{Blob: ocispec.Descriptor{Digest: rec.Blob}, DiffID: rec.DiffID}
	l.Open = func(ctx context.Context) (io.ReadCloser, error) { return s.OpenBlob(ctx, rec.Blob) }
	return l, true
}

// isUnpacked reports whether the snapshot id has a directory.
func (s *Store) isUnpacked(id string) error {
	if s.indexed() {
		_, err := s.readMeta(id)
		return err
	}
	_, err := s.Snapshot(id)
	return err
}

// layerTree builds the tree of a layer from its entries, by the rules of the
// extractor.
func layerTree(entries []indexEntry) (*layerNodes, error) {
	t := &layerNodes{root: newDirectory()}
	t.root.implicit = true
	for _, e := range entries {
		if err := t.add(&e); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
	}
	for _, name := range t.whiteouts.Opaque {
		_, d, err := t.root.resolve(name, true)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", relpath.Join(name, layers.OpaqueName), err)
		}
		d.opaque = true
	}
	// In this order a directory's whiteout comes before those in it.
	slices.Sort(t.whiteouts.Removed)
	for _, name := range slices.Compact(t.whiteouts.Removed) {
		if err := t.whiteout(name); err != nil && !errors.Is(err, layertar.ErrHidden) {
			return nil, fmt.Errorf("whiteout of %q: %w", name, err)
		}
	}
	return t, nil
}

// layerNodes is what one layer holds.
type layerNodes struct {
	root      *node
	whiteouts layertar.Whiteouts
	links     []layertar.Link // hard links to what isn't in the layer, or comes later
}

func (t *layerNodes) add(e *indexEntry) error {
	name, err := relpath.Clean(e.Name)
	if err != nil {
		return err
	}
	if done, err := t.whiteouts.Take(name); done || err != nil {
		return err
	}
	a := file.Attrs{Mode: e.Mode, UID: e.UID, GID: e.GID, Mtime: e.Mtime, Xattrs: e.Xattrs}
	if name == "" {
		if e.Type != tar.TypeDir {
			return fmt.Errorf("the root is not a directory but of type %q", e.Type)
		}
		t.root.Attrs, t.root.implicit = a, false
		return nil
	}
	parent, base := relpath.Split(name)
	at, p, err := t.root.resolve(parent, true)
	if err != nil {
		return err
	}
	n := &node{Attrs: a}
	switch e.Type {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.kind, n.data = unix.S_IFREG, e.Data
	case tar.TypeDir:
		if d := p.kids[base]; d != nil && d.isDir() {
			d.Attrs, d.implicit = a, false
			return nil
		}
		n.kind, n.kids = unix.S_IFDIR, map[string]*node{}
	case tar.TypeLink:
		return t.hardLink(layertar.Link{Path: relpath.Join(at, base), Target: e.Link, Attrs: a}, p)
	case tar.TypeSymlink:
		n.kind, n.link = unix.S_IFLNK, e.Link
	case tar.TypeFifo:
		n.kind = unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.kind = unix.S_IFCHR
		if e.Type == tar.TypeBlock {
			n.kind = unix.S_IFBLK
		}
	default:
		return fmt.Errorf("unsupported type of entry %q", e.Type)
	}
	p.kids[base] = n
	return nil
}

// hardLink makes the link l in p. A target that isn't in the layer so far may be below
// it, or come later.
func (t *layerNodes) hardLink(l layertar.Link, p *node) error {
	name, err := relpath.Clean(l.Target)
	if err != nil {
		return fmt.Errorf("target %q: %w", l.Target, err)
	}
	if err := layertar.CheckNoWhiteout(name); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	parent, last := relpath.Split(name)
	_, base := relpath.Split(l.Path)
	_, d, err := t.root.resolve(parent, false)
	if err == nil && d.kids[last] != nil {
		if d.kids[last].isDir() {
			return fmt.Errorf("target %q is a directory", l.Target)
		}
		p.kids[base] = d.kids[last]
		p.kids[base].setLinked(l.Attrs)
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("target %q: %w", l.Target, err)
	}
	l.Target = name
	t.links = append(t.links, l)
	return nil
}

// setLinked gives n the attributes of the entry of a hard link to it.
func (n *node) setLinked(by file.Attrs) { n.Attrs = n.Linked(by, n.kind == unix.S_IFLNK) }

func (t *layerNodes) whiteout(name string) error {
	parent, base := relpath.Split(name)
	_, p, err := t.root.resolve(parent, true)
	if err != nil {
		return err
	}
	switch n := p.kids[base]; {
	case n == nil:
		p.kids[base] = &node{kind: unix.S_IFCHR, gone: true}
	case n.isDir():
		n.opaque = true
	}
	return nil
}

// node is a file of a tree in memory.
type node struct {
	file.Attrs

	kind uint32           // the type in st_mode
	link string           // of a symbolic link
	kids map[string]*node // of a directory
	data []byte           // of a file that names accounts, as the index has it
	disk string           // path of the file, if it is on this disk

	// Of a layer alone:
	gone     bool // the name is removed
	opaque   bool // the directory hides those below
	implicit bool // the directory has no entry
}

func newDirectory() *node {
	return &node{Attrs: file.ImplicitAttrs, kind: unix.S_IFDIR, kids: map[string]*node{}}
}

func (n *node) isDir() bool { return n.kind == unix.S_IFDIR }

func (n *node) Child(base string) (layers.Node, bool, bool) {
	kid := n.kids[base]
	return kid, kid != nil && kid.isDir(), kid != nil
}

func (n *node) Attributes() file.Attrs { return n.Attrs }

// resolve returns the directory that the clean name leads to from the root n, and its
// own path. With create it makes what is missing, also where a link points to nothing;
// without, the path is where something is missing.
func (n *node) resolve(name string, create bool) (string, *node, error) {
	at := &nodePlace{root: n, create: create}
	if err := pathwalk.New(pathwalk.MaxLinks).Along(name, at); err != nil {
		return at.missing, nil, err
	}
	return at.Path, n.at(at.Path), nil
}

// nodePlace is a directory of a tree in memory that a walk is in.
type nodePlace struct {
	pathwalk.Position

	root    *node
	create  bool   // what is missing
	missing string // the path of what was missing and not made
}

func (p *nodePlace) Down(name string, _ *pathwalk.Walk) (target string, link bool, err error) {
	path := p.Join(name)
	d := p.root.at(p.Path)
	kid := d.kids[name]
	switch {
	case kid == nil && !p.create:
		p.missing = path
		return "", false, fmt.Errorf("%s: %w", path, unix.ENOENT)
	case kid == nil:
		kid = newDirectory()
		kid.implicit = true
		d.kids[name] = kid
	case kid.gone:
		return "", false, layertar.ErrHidden
	case kid.kind == unix.S_IFLNK:
		return kid.link, true, nil
	case !kid.isDir():
		return "", false, fmt.Errorf("%s: %w", path, unix.ENOTDIR)
	}
	p.Path = path
	return "", false, relpath.CheckLength(path)
}

// at returns the file at path itself, nil if there is none.
func (n *node) at(path string) *node {
	if path == "" {
		return n
	}
	for element := range strings.SplitSeq(path, "/") {
		if n = n.kids[element]; n == nil {
			return nil
		}
	}
	return n
}
