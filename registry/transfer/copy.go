package transfer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Copy copies the image, index or artifact at src to dst and returns what it is
// there: its manifest, which is the same byte for byte. These are places:
//
//   - [docker://]REFERENCE: at a registry
//   - oci:PATH[:TAG][@DIGEST]: in an OCI image layout, a directory or a tar; one
//     that is made is a tar if PATH ends in .tar. oci-archive: is always one
//   - docker-archive:FILE[:REFERENCE]: in a tar of docker save
//   - a path that begins with / or ./ or ../, or ends in .tar, .tar.gz or .tgz
//     (src only): either of these
//
// Blobs that a registry has are left alone, those that it has in another
// repository are mounted; all others go straight from src to dst, verified. Every
// manifest comes after what it names, the one that gets the tag last: after an
// error the tag is what it was. Layers that are at a URL of their own (of a
// foreign or non-distributable type) are not copied, as the image-spec wants; nor
// is what a manifest's subject refers to, or what refers to the image.
//
// In a layout that is a directory other images stay; an archive is made anew.
//
// A docker archive has no manifest and its layers are not compressed. It becomes
// an image with docker's media types at a registry, with OCI's in a layout, and
// with layers compressed by gzip. An image for a docker archive loses its manifest.
func Copy(ctx context.Context, c *registry.Client, src, dst string, o Options) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	from, err := parsePlace(src)
	if err != nil {
		return none, err
	}
	to := make([]*place, 0, 1+len(o.Also))
	for _, one := range append([]string{dst}, o.Also...) {
		p, err := parseDestination(one)
		if err != nil {
			return none, err
		}
		to = append(to, p)
		if len(to) > 1 && (!p.atRegistry() || !to[0].atRegistry()) {
			return none, fmt.Errorf("%s: several destinations have to be at registries", one)
		}
	}
	s, err := open(ctx, c, from, archive.Options{TempDir: o.TempDir, MaxUnpacked: o.MaxUnpacked, DockerTypes: to[0].atRegistry()})
	if err != nil {
		return none, err
	}
	root, err := s.copy(ctx, c, to, o)
	if err := errors.Join(err, s.close()); err != nil {
		return none, err
	}
	return root.Descriptor(), nil
}

// copy copies the source to all of to, and returns what was copied.
func (s *source) copy(ctx context.Context, c *registry.Client, to []*place, o Options) (*oci.Document, error) {
	if to[0].is(archive.DockerArchive) {
		return s.writeDocker(ctx, to[0], o)
	}
	if o.Platform != nil {
		im, err := oci.Pick(ctx, s, s.root, *o.Platform)
		if err != nil {
			return nil, err
		}
		s.root = im.Document()
	}
	g := &cargo{source: s, options: o, seen: make(map[digest.Digest]bool)}
	if err := g.gather(ctx, s.root, 0); err != nil {
		return nil, err
	}
	for _, d := range g.foreign {
		if o.Notice == nil {
			break
		}
		o.Notice(fmt.Sprintf("layer %s is not copied: it stays at %s", d.Digest, words.Line(strings.Join(d.URLs, ", "))))
	}
	if to[0].is(archive.OCILayout) {
		return s.root, g.write(ctx, to[0])
	}
	return s.root, g.push(ctx, c, to)
}

// writeDocker makes a docker archive of one image.
func (s *source) writeDocker(ctx context.Context, to *place, o Options) (*oci.Document, error) {
	var im *oci.Image
	var err error
	if o.Platform != nil {
		im, err = oci.Pick(ctx, s, s.root, *o.Platform)
	} else {
		im, err = oci.Choose(ctx, s, s.root, platforms.DefaultSpec())
	}
	if err != nil {
		return nil, err
	}
	for _, l := range im.Layers {
		if isForeign(l.Descriptor) {
			return nil, s.Fail(opCopy, "", fmt.Errorf("its layer %s is at a URL of its own, and a docker archive needs all layers", l.Digest))
		}
	}
	g := &cargo{source: s, options: o}
	a := archive.Contents{
		Images: []archive.Image{{Manifest: im.Raw, MediaType: im.MediaType, Config: im.Config, Layers: im.Layers}},
		Open:   g.open,
	}
	if to.file.Ref != "" {
		a.Refs = []string{to.file.Ref}
	}
	return im.Document(), archive.WriteDockerFile(ctx, to.file.Image.Dir, a)
}
