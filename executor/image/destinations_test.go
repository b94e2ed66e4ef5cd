package image_test

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestDestinationsCheck has destinations that don't fit a result, and such that do.
func TestDestinationsCheck(t *testing.T) {
	t.Parallel()
	amd64, arm64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}, ocispec.Platform{OS: "linux", Architecture: "arm64"}
	one, two := []ocispec.Platform{amd64}, []ocispec.Platform{amd64, arm64}
	level := 10
	wrong := image.Format{Compression: snapshot.Compression{Method: snapshot.Gzip, Level: &level}}
	onIndex := image.Format{Annotations: []image.Annotation{{Key: "k", Value: "v", On: image.OnIndex}}}
	forARM := image.Format{Annotations: []image.Annotation{{Key: "k", Value: "v", Platform: &arm64}}}
	outputs := func(all ...image.Output) []image.Output { return all }
	for name, test := range map[string]struct {
		d       image.Destinations
		targets []ocispec.Platform
		want    string // in the error; "" is no error
	}{
		"nothing":                            {image.Destinations{}, one, ""},
		"a format":                           {image.Destinations{Format: wrong}, one, "compression level 10: want 0 to 9"},
		"a format of no image":               {image.Destinations{Format: wrong, Outputs: outputs(image.Output{Type: image.OutputTar})}, one, ""},
		"a format of a reported image":       {image.Destinations{Format: wrong, Report: true, Outputs: outputs(image.Output{Type: image.OutputTar})}, one, "compression level 10"},
		"a format of an output":              {image.Destinations{Outputs: outputs(image.Output{Type: image.OutputOCI, Format: wrong})}, one, "compression level 10"},
		"a format of files":                  {image.Destinations{Outputs: outputs(image.Output{Type: image.OutputLocal, Format: wrong})}, one, ""},
		"docker, one platform":               {image.Destinations{Outputs: outputs(image.Output{Type: image.OutputDocker})}, one, ""},
		"docker, two platforms":              {image.Destinations{Outputs: outputs(image.Output{Type: image.OutputDocker})}, two, "type=oci, or one --platform"},
		"an index":                           {image.Destinations{Format: onIndex}, two, ""},
		"no index":                           {image.Destinations{Format: onIndex}, one, "has no index"},
		"a platform":                         {image.Destinations{Format: forARM}, two, ""},
		"a platform that isn't built":        {image.Destinations{Format: forARM}, one, "is not built"},
		"zstd where no media type has it":    {image.Destinations{Format: image.Format{DockerTypes: true, Compression: snapshot.Compression{Method: snapshot.Zstd}}}, one, "use OCI media types"},
		"a compression that nobody heard of": {image.Destinations{Format: image.Format{Compression: snapshot.Compression{Method: "xz"}}}, one, "want gzip, zstd or uncompressed"},
	} {
		err := test.d.Check(test.targets)
		if (err != nil) != (test.want != "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

// TestDestinationsCheckFiles: a file that can't be written is told before a build, and
// nothing is made for that.
func TestDestinationsCheckFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing", "file")
	for name, test := range map[string]struct {
		out image.Output
		err error
	}{
		"a file":                          {image.Output{Type: image.OutputTar, Dest: filepath.Join(dir, "file")}, nil},
		"a file in a missing directory":   {image.Output{Type: image.OutputTar, Dest: missing}, fs.ErrNotExist},
		"an image in a missing directory": {image.Output{Type: image.OutputDocker, Dest: missing}, fs.ErrNotExist},
		"a writer":                        {image.Output{Type: image.OutputTar, Dest: missing, Writer: io.Discard}, nil},
		"a directory, which is made":      {image.Output{Type: image.OutputLocal, Dest: missing}, nil},
		"a layout, which is made":         {image.Output{Type: image.OutputOCI, Dest: missing, Dir: true}, nil},
	} {
		d := image.Destinations{Outputs: []image.Output{test.out}}
		if err := d.CheckFiles(); !errors.Is(err, test.err) {
			t.Errorf("%s: %v, want %v", name, err, test.err)
		}
	}
	if left, err := filepath.Glob(dir + "/*"); len(left) > 0 || err != nil {
		t.Errorf("it made %q, %v", left, err)
	}
}
