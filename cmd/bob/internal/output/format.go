package output

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	"github.com/containers/storage/pkg/regexp"
)

// formatFields are the fields of --output that change a format.
func formatFields() map[string]func(*image.Format, string) error {
	return map[string]func(*image.Format, string) error{
		"oci-mediatypes": func(f *image.Format, value string) error {
			oci, err := cli.Bool(value)
			f.DockerTypes = !oci
			return err
		},
		"compression": func(f *image.Format, value string) error {
			f.Compression.Method = snapshot.Method(value)
			switch f.Compression.Method {
			case snapshot.Gzip, snapshot.Zstd, snapshot.Uncompressed:
				return nil
			case "estargz":
				return errors.New("estargz is not supported; want gzip, zstd or uncompressed")
			}
			return errors.New("want gzip, zstd or uncompressed")
		},
		"compression-level": func(f *image.Format, value string) error {
			n, err := strconv.Atoi(value)
			if err != nil {
				return errors.New("want a number")
			}
			f.Compression.Level = &n
			return nil
		},
		"force-compression": func(f *image.Format, value string) error {
			var err error
			f.Recompress, err = cli.Bool(value)
			return err
		},
	}
}

// refusedFields are fields of --output that buildx knows and bob refuses unless they
// are false, each with the reason.
func refusedFields() map[string]string {
	const store = "bob has no image store"
	const attestation = "bob makes no attestations"
	return map[string]string{
		"unpack": store, "store": store, "dangling-name-prefix": store, "danging-name-empty-only": store,
		"oci-artifact": attestation, "attestation-inline": attestation, "attestation-prefix": attestation,
		"registry.insecure":     "say --insecure",
		"prefer-nondist-layers": "all layers are pushed, and called so",
		"source-date-epoch":     "say --build-arg SOURCE_DATE_EPOCH=…",
	}
}

var (
	annotationField = regexp.Delayed(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)
	annotationPlace = regexp.Delayed(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)
)

// SetField sets the part of the format that a field of --output names, such as
// compression. key must be one of formatFields.
func SetField(format *image.Format, key, value string) error {
	if err := formatFields()[key](format, value); err != nil {
		return fmt.Errorf("%s=%s: %w", key, value, err)
	}
	return nil
}

// annotate takes the argument of --annotation: [place[platform],…:]key=value.
func annotate(f *image.Format, spec string) error {
	name, value, ok := strings.Cut(spec, "=")
	places, key, placed := strings.Cut(name, ":")
	if !placed {
		places, key = string(image.OnManifest), name
	}
	if !ok || key == "" {
		return errors.New("want [place:]key=value")
	}
	for place := range strings.SplitSeq(places, ",") {
		part := annotationPlace.FindStringSubmatch(place)
		if part == nil {
			return fmt.Errorf("%q is no place for an annotation; want %s", place, annotationPlaces)
		}
		if err := annotateOn(f, part[1], part[2], key, value); err != nil {
			return err
		}
	}
	return nil
}

const annotationPlaces = "manifest, manifest-descriptor, index or index-descriptor, with [os/arch] for one platform"

func annotateOn(f *image.Format, place, platform, key, value string) error {
	a := image.Annotation{On: image.AnnotationPlace(place), Key: key, Value: value}
	switch a.On {
	case "":
		a.On = image.OnManifest
	case image.OnManifest, image.OnManifestDescriptor, image.OnIndex, image.OnIndexDescriptor:
	default:
		return fmt.Errorf("%q is no place for an annotation; want %s", place, annotationPlaces)
	}
	if platform != "" {
		p, err := platforms.Parse(platform)
		if err != nil {
			return err
		}
		p = platforms.Normalize(p)
		a.Platform = &p
	}
	f.Annotations = append(slices.Clip(f.Annotations), a)
	return nil
}
