package transfer

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/containers/storage/pkg/regexp"
	"github.com/google/go-containerregistry/pkg/name"
)

// place is where an image is or is to go, as [Copy] describes it.
type place struct {
	text   string         // as the user wrote it
	ref    name.Reference // at a registry; nil elsewhere
	file   archive.Source // elsewhere
	tarred bool           // a layout to be written is a tar
}

func (p *place) atRegistry() bool { return p.ref != nil }

// is says whether the place is a file of a kind.
func (p *place) is(kind archive.Kind) bool { return !p.atRegistry() && p.file.Kind == kind }

// fileName matches names that mean a file or directory and not a reference.
var fileName = regexp.Delayed(`^(/|\.\.?/)|^[^:]*\.(tar|tar\.gz|tgz)$`)

// CheckPlace returns an error that says why s names no place for [Copy]. It looks at no
// file and reaches no registry.
func CheckPlace(s string) error {
	_, err := parsePlace(s)
	return err
}

func parsePlace(s string) (*place, error) {
	p := &place{text: s}
	var err error
	if ref, ok := strings.CutPrefix(s, "docker://"); ok {
		p.ref, err = reference.Parse(ref)
		return p, err
	}
	transport, rest, _ := strings.Cut(s, ":")
	switch {
	case fileName.MatchString(s):
		p.file = archive.Source{Kind: archive.AnyKind, Image: archive.LayoutImage{Dir: s}}
	case transport == "oci", transport == "oci-archive":
		image, err := archive.ParseLayoutImage(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		p.file = archive.Source{Kind: archive.OCILayout, Image: *image}
		p.tarred = transport == "oci-archive" || strings.HasSuffix(image.Dir, ".tar")
	case transport == "docker-archive":
		p.file.Kind = archive.DockerArchive
		p.file.Image.Dir, p.file.Ref, _ = strings.Cut(rest, ":")
		if p.file.Ref != "" {
			err = archive.CheckName(p.file.Ref)
		}
	default:
		p.ref, err = reference.Parse(s)
		return p, err
	}
	if err == nil && p.file.Image.Dir == "" {
		err = errors.New("the path is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	p.file.Name = s
	return p, nil
}

// parseDestination reads the name of a place that can be written to.
func parseDestination(s string) (*place, error) {
	p, err := parsePlace(s)
	switch {
	case err != nil:
		return nil, err
	case p.is(archive.AnyKind):
		return nil, fmt.Errorf("%s: say what to make of it: oci:%[1]s or docker-archive:%[1]s", s)
	case p.is(archive.OCILayout) && p.file.Image.Digest != "":
		return nil, fmt.Errorf("%s: the digest is the image's, leave it out", s)
	}
	return p, nil
}
