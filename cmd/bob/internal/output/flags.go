// Package output says where the image that a build makes goes, and what it looks like:
// the flags, and one table of the types of --output.
package output

import (
	"errors"
	"flag"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
	"github.com/distribution/reference"
)

// Flags are the flags that say where the image goes and what it looks like.
type Flags struct {
	// Tags are the values of --tag.
	Tags cli.List

	outputs, annotations, attest     cli.List
	push, ociTypes, forceCompression cli.Choice
	compression, compressionLevel    cli.Text
	provenance, sbom                 cli.Text
}

// Register adds the flags to fs.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.Var(&f.Tags, "tag", "`reference` to push the image to; repeatable")
	fs.Var(&f.outputs, "output", "`spec` of where the result goes, type="+strings.Join(kindNames(), "|")+",dest=PATH; repeatable")
	fs.Var(&f.push, "push", "push to the tags; on unless --output names other places")
	fs.Var(&f.annotations, "annotation", "`[place:]key=value` put on manifest (the default), index, manifest-descriptor or index-descriptor; repeatable")
	fs.Var(&f.ociTypes, "oci-mediatypes", "write OCI media types (the default) or, if false, those of Docker's schema 2")
	fs.Var(&f.compression, "compression", "`method` for layers: gzip (the default), zstd or uncompressed")
	fs.Var(&f.compressionLevel, "compression-level", "`level` of it, 0 to 9 for gzip, 0 to 22 for zstd")
	fs.Var(&f.forceCompression, "force-compression", "compress the layers of the base in the same way")
	fs.Var(&f.attest, "attest", "`spec` of an attestation: bob makes none, type=…,disabled=true is accepted; repeatable")
	fs.Var(&f.provenance, "provenance", "false is accepted, bob makes no `attestation`")
	fs.Var(&f.sbom, "sbom", "false is accepted, bob makes no `attestation`")
}

// Apply sets where the image goes and what it looks like. Without --output it goes to
// the tags. A tar without a file goes to stdout. The error joins everything that is
// wrong.
func (f *Flags) Apply(o *executor.Options, stdout io.Writer) error {
	common, errFormat := f.format()
	specs, errSpecs := f.specs()
	if err := errors.Join(f.checkTags(), errSpecs, errFormat); err != nil {
		return err
	}
	names, push := f.Tags.Values, f.push.Or(len(specs) == 0)
	var pushed *spec
	o.Format = common
	for _, s := range specs {
		names = append(slices.Clip(names), s.names...)
		if !s.toRegistry() {
			out, err := s.output(common, stdout)
			if err != nil {
				return err
			}
			o.Outputs = append(o.Outputs, out)
			continue
		}
		if pushed != nil && !pushed.sameImage(s) {
			return s.wrong("one image is pushed to all names: give all of type=registry the same fields, or build again")
		}
		pushed, push = s, push || s.push
		o.Format, o.ByDigest, o.Report = s.format(common), s.byDigest, true
	}
	for i := range o.Outputs {
		o.Outputs[i].Names = names
	}
	if push {
		o.Tags = names
	}
	return f.checkNames(o, names, push)
}

// checkNames checks that the image has names where it is pushed, and that they fit.
func (f *Flags) checkNames(o *executor.Options, names []string, push bool) error {
	for _, name := range names {
		if named, err := reference.ParseNormalizedNamed(name); err == nil && o.ByDigest && !reference.IsNameOnly(named) {
			return cli.Errorf("push-by-digest gives no names: leave the tag out of %s", name)
		}
	}
	if len(names) == 0 && (f.push.Or(false) || push && len(f.outputs.Values) > 0) {
		return cli.Errorf("nothing says where to push to: name it with -t")
	}
	return nil
}

func (f *Flags) checkTags() error {
	var wrong []error
	for _, t := range f.Tags.Values {
		if _, err := reference.ParseNormalizedNamed(t); err != nil {
			wrong = append(wrong, cli.About("tag", t, cli.Errorf("-t %s: %v", t, err)))
		}
	}
	return errors.Join(wrong...)
}

// specs returns what the values of --output stand for.
func (f *Flags) specs() ([]*spec, error) {
	var all []*spec
	var wrong []error
	for _, text := range f.outputs.Values {
		s := &spec{text: text}
		if err := s.parse(); err != nil {
			wrong = append(wrong, s.wrong("%v", err))
		}
		all = append(all, s)
	}
	return all, errors.Join(wrong...)
}

// format returns the format that the flags ask for.
func (f *Flags) format() (image.Format, error) {
	format := image.Format{DockerTypes: !f.ociTypes.Or(true), Recompress: f.forceCompression.Or(false)}
	wrong := []error{f.noAttestations()}
	for _, of := range []struct {
		flag  string
		value cli.Text
	}{{"compression", f.compression}, {"compression-level", f.compressionLevel}} {
		if of.value == "" {
			continue
		}
		if err := formatFields()[of.flag](&format, string(of.value)); err != nil {
			wrong = append(wrong, cli.Wrong(of.flag, of.value, "%v", err))
		}
	}
	for _, spec := range f.annotations.Values {
		if err := annotate(&format, spec); err != nil {
			wrong = append(wrong, cli.Wrong("annotation", spec, "%v", err))
		}
	}
	return format, errors.Join(wrong...)
}

// noAttestations refuses flags that ask for attestations. bob makes no attestations.
func (f *Flags) noAttestations() error {
	const none = "bob makes no attestations; leave it out, or make them from the pushed image with a tool for it"
	var wrong []error
	for _, of := range []struct {
		flag  string
		value cli.Text
	}{{"provenance", f.provenance}, {"sbom", f.sbom}} {
		if wanted, err := strconv.ParseBool(string(of.value)); of.value != "" && (err != nil || wanted) {
			wrong = append(wrong, cli.About(of.flag, "", cli.Errorf("--%s=%s: %s", of.flag, of.value, none)))
		}
	}
	for _, spec := range f.attest.Values {
		if !slices.Contains(strings.Split(spec, ","), "disabled=true") {
			wrong = append(wrong, cli.Wrong("attest", spec, "%s", none))
		}
	}
	return errors.Join(wrong...)
}
