package image

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// An OutputType is a form in which a result leaves the build.
type OutputType string

// The forms of output, named as in docker build.
const (
	OutputOCI    OutputType = "oci"    // an OCI image layout, as a tar or a directory
	OutputDocker OutputType = "docker" // a tar that docker load reads
	OutputTar    OutputType = "tar"    // the files of the image as a tar
	OutputLocal  OutputType = "local"  // the files of the image in a directory
)

// An Output is one place that the result is written to. A file appears complete or not
// at all. A directory is created if it doesn't exist, and is written into otherwise.
type Output struct {
	Type OutputType
	// Dest is the file or directory. It is not used if Writer is set.
	Dest string
	// Writer, if set, gets the content in place of the file Dest. The caller closes it.
	Writer io.Writer
	// Dir makes OutputOCI write a directory in place of a tar.
	Dir bool
	// Names are the names of the image inside the output.
	Names []string
	// Format is how an image is written.
	Format Format
}

// isImage reports whether the output holds an image and not just its files.
func (o *Output) isImage() bool { return o.Type == OutputOCI || o.Type == OutputDocker }

// check reports early what would keep a file from being written at the end.
func (o *Output) check() error {
	if o.Writer != nil || o.Dir || o.Type == OutputLocal {
		return nil
	}
	dir := filepath.Dir(o.Dest)
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("output %s: write to directory %s: %w", o.Dest, dir, err)
	}
	return nil
}

// Destinations are where a result goes.
type Destinations struct {
	// Tags are the references that the image is pushed to. They may lie in
	// different registries.
	Tags []string
	// ByDigest pushes the image to the repositories of Tags without a tag: its digest
	// is its name.
	ByDigest bool
	// Format is the format of the image that is pushed, or only reported.
	Format Format
	// Outputs are further places that the result is written to.
	Outputs []Output
	// Report makes an image of the result even if only files are asked for.
	Report bool
}

// Check refuses destinations that don't fit a result for these platforms.
func (d *Destinations) Check(targets []ocispec.Platform) error {
	for _, f := range d.formats() {
		if err := f.check(targets); err != nil {
			return err
		}
	}
	for _, out := range d.Outputs {
		if out.Type == OutputDocker && len(targets) > 1 {
			return errors.New("type=docker: docker load takes an image for one platform: use type=oci, or one --platform")
		}
	}
	return nil
}

// CheckFiles reports early what would keep a file from being written at the end.
func (d *Destinations) CheckFiles() error {
	for i := range d.Outputs {
		if err := d.Outputs[i].check(); err != nil {
			return err
		}
	}
	return nil
}

// formats returns the formats that the image is written in, first the format of the
// image that is pushed or reported. If only files are asked for, it returns nil.
func (d *Destinations) formats() []*Format {
	var all []*Format
	if len(d.Tags) > 0 || len(d.Outputs) == 0 || d.Report {
		all = append(all, &d.Format)
	}
	for i := range d.Outputs {
		if out := &d.Outputs[i]; out.isImage() {
			all = append(all, &out.Format)
		}
	}
	return all
}
