package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/bobbuild/bob/registry/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// WriteDir writes the layout to the directory dir, made if need be. A layout that
// exists keeps its other images; an image of the same name is replaced. A directory
// with other content is an error. index.json is replaced last, by a rename, so that an
// error leaves at worst unused blobs. Two writers of one directory must not run at the
// same time.
func (l *Layout) WriteDir(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // images are for others to read
		return fmt.Errorf("write layout: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	defer func() { _ = root.Close() }() // only read by now
	if err := l.writeDir(ctx, root); err != nil {
		return fmt.Errorf("write layout %s: %w", dir, err)
	}
	return nil
}

func (l *Layout) writeDir(ctx context.Context, root *os.Root) error {
	others, err := readLayout(root)
	if err != nil {
		return err
	}
	for _, blob := range l.Blobs {
		if err := blob.writeFile(ctx, root); err != nil {
			return err
		}
	}
	index, err := encodeIndex(append(without(others, l.Entries), l.Entries...))
	if err != nil {
		return err
	}
	if err := replaceFile(root, ocispec.ImageLayoutFile, layoutMarker()); err != nil {
		return err
	}
	return replaceFile(root, ocispec.ImageIndexFile, index)
}

// readLayout returns the entries of the layout in root. An empty root has no entries.
func readLayout(root *os.Root) ([]ocispec.Descriptor, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(1)
	_ = d.Close() // only read
	if errors.Is(err, io.EOF) || (err == nil && len(names) == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := root.Stat(ocispec.ImageLayoutFile); err != nil {
		return nil, fmt.Errorf("the directory is neither empty nor an OCI image layout: %w", err)
	}
	f, err := root.Open(ocispec.ImageIndexFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return readEntries(f)
}

// readEntries reads an index.json.
func readEntries(r io.Reader) ([]ocispec.Descriptor, error) {
	body, err := oci.ReadBounded(r, oci.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	return index.Manifests, nil
}

// without returns the entries of old that no new entry replaces.
func without(old, added []ocispec.Descriptor) []ocispec.Descriptor {
	var kept []ocispec.Descriptor
	for _, o := range old {
		replaced := false
		for _, n := range added {
			sameImage := o.Digest == n.Digest && len(o.Annotations) == 0
			tag := n.Annotations[ocispec.AnnotationRefName]
			replaced = replaced || sameImage || (tag != "" && o.Annotations[ocispec.AnnotationRefName] == tag)
		}
		if !replaced {
			kept = append(kept, o)
		}
	}
	return kept
}

// writeFile writes the blob unless it's there.
func (b *Blob) writeFile(ctx context.Context, root *os.Root) error {
	name := blobPath(b.Digest)
	if info, err := root.Stat(name); err == nil && info.Mode().IsRegular() && info.Size() == b.Size {
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	for {
		err := writeThenRename(root, name, func(w io.Writer) error {
			return b.read(ctx, func(r io.Reader) error {
				_, err := io.Copy(w, r)
				return err
			})
		})
		if e, ok := errors.AsType[interface {
			error
			Again() bool
		}](err); !ok || !e.Again() {
			return err
		}
	}
}

func replaceFile(root *os.Root, name string, body []byte) error {
	return writeThenRename(root, name, func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	})
}
