package image

import (
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
