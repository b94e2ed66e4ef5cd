package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/bobbuild/bob/registry/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Kind is one of the forms that images have as files.
type Kind int

const (
	// AnyKind stands for the kind that Open finds by looking.
	AnyKind Kind = iota
	// OCILayout is a directory or a tar that is an OCI image layout.
	OCILayout
	// DockerArchive is a tar of docker save.
	DockerArchive
)

// A Source names an image in a layout or an archive.
type Source struct {
	Kind  Kind
	Image LayoutImage // Dir is the path of whatever it is; Tag and Digest are a layout's
	Ref   string      // the image's whole reference in a docker archive; "" is the only one
	Name  string      // the source as the user wrote it, for errors
}

// A Reader is a layout or an archive that is read. It is an [oci.Keeper].
type Reader struct {
	*keeper

	// Root is the manifest or index that the source names.
	Root *oci.Document
	// DockerManifest is the manifest.json of a docker archive, whose Root is made up.
	// It is nil for everything else.
	DockerManifest []byte

	closers []io.Closer
}

// Open opens what s names. The caller closes the reader after the last read from it and
// from its images.
func Open(ctx context.Context, s Source, o Options) (*Reader, error) {
	r := &Reader{keeper: &keeper{directory(s.Image.Dir), s.Name}}
	err := r.open(ctx, s, o)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close implements io.Closer.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (r *Reader) open(ctx context.Context, s Source, o Options) error {
	path, kind := s.Image.Dir, s.Kind
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	switch {
	case info.IsDir() && kind == DockerArchive:
		return fmt.Errorf("read %s: a docker archive is a file, and this is a directory", path)
	case info.IsDir():
	case !info.Mode().IsRegular():
		return fmt.Errorf("read %s: it is neither a file nor a directory", path)
	default:
		tarred, f, err := openTar(ctx, path, o)
		if err != nil {
			return err
		}
		r.closers = append(r.closers, f)
		r.files = tarred
		// bob's own docker archives are also layouts. Reading them as layouts loses
		// nothing.
		if kind == AnyKind && tarred[ocispec.ImageIndexFile] == nil {
			kind = DockerArchive
			if tarred[dockerManifestFile] == nil {
				return fmt.Errorf("read %s: neither an OCI image layout nor a docker archive", path)
			}
		}
		if kind == DockerArchive {
			if err := r.convert(ctx, tarred, s.Ref, o); err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
		}
	}
	r.Root, err = s.Image.root(ctx, r.keeper)
	return err
}

// convert lets the reader read an image of a docker archive as a layout.
func (r *Reader) convert(ctx context.Context, tarred members, ref string, o Options) error {
	image, err := findDockerImage(tarred, ref)
	if err != nil {
		return err
	}
	if r.DockerManifest, err = tarred.read(dockerManifestFile, oci.MaxManifest); err != nil {
		return err
	}
	made, err := image.layout(ctx, o)
	r.closers = append(r.closers, made)
	r.files = made.members
	return err
}
