package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is where a copy comes from.
type source struct {
	content
	root    *document
	ref     string // at a registry, to mount from; "" elsewhere
	closers []io.Closer
	// archived is the manifest.json of a docker archive, whose root was made up.
	archived []byte
}

// content is the documents and blobs of a repository or a layout.
type content interface {
	keeper
	blob(ctx context.Context, op string, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Close implements io.Closer.
func (s *source) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// sourceOptions say how a docker archive becomes an image.
type sourceOptions struct {
	temp   string // directory for layers that have to be compressed
	limit  int64  // bytes that an archive, or a layer in it, may have uncompressed; 0: any number
	keep   bool   // leave layers as they are
	docker bool   // with docker's media types
}

// open reaches what is at p. The caller closes the source.
func (c *Client) open(ctx context.Context, p *place, o sourceOptions) (*source, error) {
	if p.kind == inRegistry {
		m, err := c.mirrors(p.ref)
		if err != nil {
			return nil, err
		}
		root, err := m.root(ctx)
		if err != nil {
			return nil, err
		}
		return &source{content: m, root: root, ref: displayReference(p.ref)}, nil
	}
	s := &source{}
	err := s.openFile(ctx, p, o)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openFile opens a layout or an archive.
func (s *source) openFile(ctx context.Context, p *place, o sourceOptions) error {
	l := p.layout
	if l == nil {
		l = &LayoutImage{Dir: p.path, name: p.text}
	}
	info, err := os.Stat(p.path)
	if err != nil {
		return err
	}
	kind := p.kind
	switch {
	case info.IsDir():
	case !info.Mode().IsRegular():
		return fmt.Errorf("read %s: it is neither a file nor a directory", p.path)
	default:
		files, f, err := openTar(ctx, p.path, o.temp, o.limit)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, f)
		l.members = files
		// bob's own docker archives are both, and lose nothing as a layout.
		if kind == inFile && files[ocispec.ImageIndexFile] == nil {
			kind = inDockerArchive
			if files[dockerManifestFile] == nil {
				return fmt.Errorf("read %s: neither an OCI image layout nor a docker archive", p.path)
			}
		}
	}
	if kind == inDockerArchive {
		if err := s.convert(ctx, l, p.tag, o); err != nil {
			return fmt.Errorf("read %s: %w", p.path, err)
		}
	}
	s.content = l
	want, err := l.find()
	if err != nil {
		return l.fail("resolve", "", err)
	}
	s.root, err = l.manifest(ctx, want.Digest.String(), want)
	return err
}

// convert makes l the layout of an image of a docker archive.
func (s *source) convert(ctx context.Context, l *LayoutImage, ref string, o sourceOptions) error {
	if l.members == nil {
		return errors.New("a docker archive is a file, and this is a directory")
	}
	image, err := findDockerImage(l.members, ref)
	if err != nil {
		return err
	}
	if s.archived, err = l.members.read(dockerManifestFile, maxManifest); err != nil {
		return err
	}
	made, err := image.layout(ctx, o)
	s.closers = append(s.closers, made)
	l.members = made.members
	return err
}
