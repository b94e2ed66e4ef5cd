package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/blobs"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/records"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// indexed finds snapshots of which layers of images may be known by an index only: by what
// a layer's tar says of each file, with content only of the files that name accounts. The
// index of a layer is a record under its DiffID. Another record, under the snapshot's ID,
// tells which layer a snapshot is.
type indexed struct {
	*part

	records *records.Records
	blobs   *blobs.Blobs
	offers  sync.Map // layers that may be unpacked, by the snapshot's ID

	mu    sync.Mutex
	trees map[string]*tree.Node // of snapshots, by ID
}

const (
	indexKind = "layer-index-1"
	stackKind = "layer-stack-1"
)

// stackRecord says that a snapshot is a layer over another one.
type stackRecord struct {
	Parent string
	DiffID digest.Digest
	Blob   digest.Digest `json:",omitempty"` // that it was read from; the store may hold it
}

// offer notes where layers are that may have to be unpacked, the first over the snapshot
// below.
func (s *indexed) offer(below string, all []content.Layer) {
	for i, id := range content.StackIDs(below, all) {
		s.offers.Store(id, all[i])
	}
}

// add makes the snapshot of l over parent one that is known by an index.
func (s *indexed) add(ctx context.Context, parent string, l content.Layer) error {
	if err := s.indexLayer(ctx, l); err != nil {
		return fmt.Errorf("index layer %s: %w", l.Name(), err)
	}
	value, err := json.Marshal(stackRecord{parent, l.DiffID, l.Blob.Digest})
	if err != nil {
		return err
	}
	id := content.StackID(parent, l.DiffID)
	return s.records.Put(stackKind, digest.NewDigestFromEncoded(digest.SHA256, id), value)
}

// indexLayer makes the index of l, unless the store has it.
func (s *indexed) indexLayer(ctx context.Context, l content.Layer) error {
	if _, err := s.records.Get(indexKind, l.DiffID); err == nil {
		return nil
	}
	entries, err := s.readEntries(ctx, l)
	for content.Again(err) {
		entries, err = s.readEntries(ctx, l)
	}
	if err != nil {
		return err
	}
	if _, err := tree.FromEntries(entries); err != nil {
		return err
	}
	value, err := tree.Encode(entries)
	if err != nil {
		return err
	}
	return s.records.Put(indexKind, l.DiffID, value)
}

func (s *indexed) readEntries(ctx context.Context, l content.Layer) (entries []tree.Entry, err error) {
	budget := bounded.NewBudget(s.maxUnpacked)
	err = l.Stream(ctx, budget, func(ctx context.Context, r io.Reader) (err error) {
		entries, err = tree.ReadEntries(ctx, r, budget)
		return err
	})
	return entries, err
}

// stackOf returns which layer the snapshot id is, if that is indexed, and marks its index
// as used. The error of one that isn't is fs.ErrNotExist.
func (s *indexed) stackOf(id string) (stackRecord, error) {
	var rec stackRecord
	if len(id) != digest.SHA256.Size()*2 { // random IDs are shorter
		return rec, fs.ErrNotExist
	}
	b, err := s.records.Get(stackKind, digest.NewDigestFromEncoded(digest.SHA256, id))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err == nil {
		err = s.records.Mark(indexKind, rec.DiffID)
	}
	return rec, err
}

// whereIs returns the layer that the only indexed snapshot id is, to be unpacked: as it
// was offered or else, as the results of steps are that came from a cache elsewhere, in
// the store itself. ok says whether it is anywhere.
func (s *indexed) whereIs(id string, rec stackRecord) (l content.Layer, ok bool) {
	if l, ok := s.offers.Load(id); ok {
		return l.(content.Layer), true //nolint:forcetypeassert // nothing else is stored
	}
	if s.blobs.Mark(rec.Blob) != nil {
		return l, false
	}
	l = content.Layer{Blob: ocispec.Descriptor{Digest: rec.Blob}, DiffID: rec.DiffID}
	l.Open = func(ctx context.Context) (io.ReadCloser, error) { return s.blobs.Open(ctx, rec.Blob) }
	return l, true
}

// onlyIndexed returns what the snapshot id lies on if it is only indexed, and else err.
func (s *indexed) onlyIndexed(id string, err error) (parent string, _ error) {
	rec, notIndexed := s.stackOf(id)
	if notIndexed != nil {
		return "", err
	}
	if _, ok := s.whereIs(id, rec); !ok {
		return "", fmt.Errorf("layer %s: %w", rec.DiffID, fs.ErrNotExist)
	}
	return rec.Parent, nil
}

func (s *indexed) layers(id string) ([]string, error) { return s.find(id, s.onlyIndexed) }

// has reports by its error whether the snapshot id has a directory.
func (s *indexed) has(id string) error {
	_, err := s.snapshots.Meta(id)
	return err
}

func (s *indexed) parent(id string) (string, error) {
	m, err := s.snapshots.Meta(id)
	if errors.Is(err, fs.ErrNotExist) {
		rec, err := s.stackOf(id)
		return rec.Parent, err
	}
	return m.Parent, err
}

func (s *indexed) stack(id string) (*layers.Stack, error) {
	m, err := s.snapshots.Meta(id)
	if err != nil {
		return nil, err
	}
	below, err := s.tree(m.Parent)
	return layers.OfTree(below, s.owners, s.marks), err
}

// tree returns the tree of all files of the snapshot id, "" for the empty one. Nobody may
// change it.
func (s *indexed) tree(id string) (*tree.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readTree(id)
}

// readTree is tree under the lock.
func (s *indexed) readTree(id string) (*tree.Node, error) {
	if id == "" {
		return tree.NewDirectory(), nil
	}
	if n := s.trees[id]; n != nil {
		return n, nil
	}
	layer, parent, err := s.readLayer(id)
	if err != nil {
		return nil, fmt.Errorf("read tree of snapshot %s: %w", id, err)
	}
	below, err := s.readTree(parent)
	if err != nil {
		return nil, err
	}
	merged, err := tree.Merge(below, layer)
	if err != nil {
		return nil, fmt.Errorf("lay snapshot %s over %s: %w", id, parent, err)
	}
	s.trees[id] = merged
	return merged, nil
}

// readLayer returns what the snapshot id has over its parent, from its directory or its
// index.
func (s *indexed) readLayer(id string) (layer *tree.Layer, parent string, err error) {
	m, err := s.snapshots.Meta(id)
	if err == nil {
		layer, err = tree.FromDirectory(s.snapshots.Layer(id), m.Opaque, s.owners, s.marks)
		return layer, m.Parent, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	rec, err := s.stackOf(id)
	if err != nil {
		return nil, "", err
	}
	value, err := s.records.Get(indexKind, rec.DiffID)
	if err != nil {
		return nil, "", err
	}
	entries, err := tree.Decode(value)
	if err != nil {
		return nil, "", fmt.Errorf("index of layer %s: %w", rec.DiffID, err)
	}
	layer, err = tree.FromEntries(entries)
	return layer, rec.Parent, err
}

// unpackAll unpacks what of the snapshot top is only indexed, and returns the directories
// that make it up, top first.
func (s *indexed) unpackAll(ctx context.Context, top string) ([]string, error) {
	if top == "" {
		return nil, nil
	}
	var ids []string // of what is only indexed, top first
	for id := top; id != ""; {
		if s.has(id) != nil {
			ids = append(ids, id)
		}
		var err error
		if id, err = s.parent(id); err != nil {
			return nil, err
		}
	}
	slices.Reverse(ids)
	for len(ids) > 0 {
		below, err := s.parent(ids[0])
		if err != nil {
			return nil, err
		}
		run, err := s.layersFrom(below, ids)
		if err != nil {
			return nil, err
		}
		if _, err := s.unpackLayers(ctx, s, below, run, 0); err != nil {
			return nil, err
		}
		ids = ids[len(run):]
	}
	return s.layers(top)
}

// layersFrom returns the layers of the first of the ids that lie on each other without
// anything between them, the first on the snapshot below.
func (s *indexed) layersFrom(below string, ids []string) ([]content.Layer, error) {
	var run []content.Layer
	for _, id := range ids {
		on, err := s.parent(id)
		if err != nil {
			return nil, err
		}
		if on != below {
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
		run, below = append(run, l), id
	}
	return run, nil
}
