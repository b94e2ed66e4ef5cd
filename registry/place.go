package registry

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// placeKind is what kind of place an image is in.
type placeKind int

const (
	inRegistry placeKind = iota
	inLayout             // a directory or a tar that is an OCI image layout
	inDockerArchive
	inFile // found out by looking at it
)

// place is where an image is or is to go, as [Client.Copy] describes it.
type place struct {
	kind   placeKind
	text   string         // as the user wrote it
	ref    name.Reference // in a registry
	layout *LayoutImage   // in a layout
	tarred bool           // a layout to be written is a tar
	path   string         // of a docker archive, or of a file of either kind
	tag    string         // in a docker archive: the image's whole reference; "" = none
}

// fileName is what is taken to be a file or directory and not a reference.
var fileName = regexp.MustCompile(`^(/|\.\.?/)|^[^:]*\.(tar|tar\.gz|tgz)$`)

// CheckPlace says why s names no place for [Client.Copy]; it looks at no file and
// reaches no registry.
func CheckPlace(s string) error {
	_, err := parsePlace(s)
	return err
}

func parsePlace(s string) (*place, error) {
	p := &place{text: s}
	var err error
	if ref, ok := strings.CutPrefix(s, "docker://"); ok {
		p.ref, err = parseReference(ref)
		return p, err
	}
	transport, rest, _ := strings.Cut(s, ":")
	switch {
	case fileName.MatchString(s):
		p.kind, p.path = inFile, s
	case transport == "oci", transport == "oci-archive":
		p.kind = inLayout
		if p.layout, err = ParseLayoutImage(rest); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		p.layout.name, p.path = s, p.layout.Dir
		p.tarred = transport == "oci-archive" || strings.HasSuffix(p.path, ".tar")
	case transport == "docker-archive":
		p.kind = inDockerArchive
		p.path, p.tag, _ = strings.Cut(rest, ":")
		if p.tag != "" {
			_, err = normalizeName(p.tag)
		}
	default:
		p.ref, err = parseReference(s)
		return p, err
	}
	if err == nil && p.path == "" {
		err = errors.New("the path is missing")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	return p, nil
}
