package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// WriteOCIDir writes an OCI image layout to the directory dir, made if need be.
// A layout that is there already keeps its other images; those of the same name
// are replaced. A directory with anything else in it is refused. index.json is
// replaced last and at once: an error leaves at worst unused blobs. Two writers
// of one directory must not run at the same time.
func WriteOCIDir(ctx context.Context, dir string, a Archive) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	return l.writeTo(ctx, dir)
}

// writeTo writes the layout to a directory as [WriteOCIDir] does.
func (l *layout) writeTo(ctx context.Context, dir string) error {
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

func (l *layout) writeDir(ctx context.Context, root *os.Root) error {
	others, err := readLayout(root)
	if err != nil {
		return err
	}
	for _, blob := range l.blobs {
		if err := blob.writeFile(ctx, root); err != nil {
			return err
		}
	}
	index, err := encodeIndex(append(without(others, l.entries), l.entries...))
	if err != nil {
		return err
	}
	if err := replaceFile(root, ocispec.ImageLayoutFile, layoutMarker()); err != nil {
		return err
	}
	return replaceFile(root, ocispec.ImageIndexFile, index)
}

// readLayout returns the entries of the layout in root, none if root is empty.
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
	body, err := readBounded(r, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, fmt.Errorf("read index.json: %w", err)
	}
	return index.Manifests, nil
}

// without returns the entries of old that none of the new ones replaces.
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
func (b *layoutBlob) writeFile(ctx context.Context, root *os.Root) error {
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
		if e, ok := errors.AsType[*Error](err); !ok || !e.again {
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

// writeThenRename makes name appear with all of its content or not at all.
func writeThenRename(root *os.Root, name string, write func(io.Writer) error) error {
	temporary := path.Join(path.Dir(name), ".tmp-"+rand.Text())
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		_ = root.Remove(temporary) // the first error counts
	}
	return err
}
