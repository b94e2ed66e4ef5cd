package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// formatFlags are the flags that say what the image looks like.
type formatFlags struct {
	platforms, annotations, attest *cli.List
	ociTypes                       cli.Choice
	compression, compressionLevel  cli.Text
	forceCompression               cli.Choice
	provenance, sbom               cli.Text
}

func (f *formatFlags) register(fs *flag.FlagSet) {
	f.platforms, f.annotations, f.attest = new(cli.List), new(cli.List), new(cli.List)
	fs.Var(f.platforms, "platform", "`os/arch[/variant]` to build for, a list with commas makes an index (default: this machine's); repeatable")
	fs.Var(f.annotations, "annotation", "`[place:]key=value` put on manifest (the default), index, manifest-descriptor or index-descriptor; repeatable")
	fs.Var(&f.ociTypes, "oci-mediatypes", "write OCI media types (the default) or, if false, those of Docker's schema 2")
	fs.Var(&f.compression, "compression", "`method` for layers: gzip (the default), zstd or uncompressed")
	fs.Var(&f.compressionLevel, "compression-level", "`level` of it, 0 to 9 for gzip, 0 to 22 for zstd")
	fs.Var(&f.forceCompression, "force-compression", "compress the layers of the base in the same way")
	fs.Var(f.attest, "attest", "`spec` of an attestation: bob makes none, type=…,disabled=true is accepted; repeatable")
	fs.Var(&f.provenance, "provenance", "false is accepted, bob makes no `attestation`")
	fs.Var(&f.sbom, "sbom", "false is accepted, bob makes no `attestation`")
}

// targets returns the platforms to build for, each once, and whether they were
// asked for.
func (f *formatFlags) targets() (all []ocispec.Platform, given bool, err error) {
	for _, values := range f.platforms.Values {
		for name := range strings.SplitSeq(values, ",") {
			p, err := platformOf(strings.TrimSpace(name))
			if err != nil {
				return nil, false, cli.About("platform", values, err)
			}
			if !slices.ContainsFunc(all, func(q ocispec.Platform) bool { return platforms.FormatAll(q) == platforms.FormatAll(p) }) {
				all = append(all, p)
			}
		}
	}
	if len(all) > 0 {
		return all, true, nil
	}
	return []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())}, false, nil
}

// platformOf parses a platform; "local" is that of this machine.
func platformOf(s string) (ocispec.Platform, error) {
	if s == "local" {
		return platforms.Normalize(platforms.DefaultSpec()), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return p, cli.Errorf("--platform %s: %v", s, err)
	}
	return platforms.Normalize(p), nil
}

// plans returns the plan of f for each platform.
func (o *options) plans(f *dockerfile.File) ([]*dockerfile.Plan, error) {
	var all []*dockerfile.Plan
	for _, p := range o.platforms {
		plan := o.plan
		plan.TargetPlatform = p
		made, err := f.Plan(plan)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return all, nil
}

// format returns what the flags ask for.
func (f *formatFlags) format() (executor.Format, error) {
	format := executor.Format{DockerTypes: !f.ociTypes.Or(true), Recompress: f.forceCompression.Or(false)}
	wrong := []error{f.noAttestations()}
	for _, of := range []struct {
		flag  string
		value cli.Text
	}{{"compression", f.compression}, {"compression-level", f.compressionLevel}} {
		if of.value == "" {
			continue
		}
		if err := formatAttributes()[of.flag](&format, string(of.value)); err != nil {
			wrong = append(wrong, cli.About(of.flag, "", cli.Errorf("--%s %s: %v", of.flag, of.value, err)))
		}
	}
	for _, spec := range f.annotations.Values {
		if err := annotate(&format, spec); err != nil {
			wrong = append(wrong, cli.Wrong("annotation", spec, "%v", err))
		}
	}
	return format, errors.Join(wrong...)
}

// noAttestations accepts the flags about attestations as far as they ask for none.
func (f *formatFlags) noAttestations() error {
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

// formatAttributes are the fields of --output that change a format.
func formatAttributes() map[string]func(*executor.Format, string) error {
	return map[string]func(*executor.Format, string) error{
		"oci-mediatypes": func(f *executor.Format, value string) error {
			oci, err := cli.Bool(value)
			f.DockerTypes = !oci
			return err
		},
		"compression": func(f *executor.Format, value string) error {
			f.Compression.Method = snapshot.Method(value)
			switch f.Compression.Method {
			case snapshot.Gzip, snapshot.Zstd, snapshot.Uncompressed:
				return nil
			case "estargz":
				return errors.New("estargz is not supported; want gzip, zstd or uncompressed")
			}
			return errors.New("want gzip, zstd or uncompressed")
		},
		"compression-level": func(f *executor.Format, value string) error {
			n, err := strconv.Atoi(value)
			if err != nil {
				return errors.New("want a number")
			}
			f.Compression.Level = &n
			return nil
		},
		"force-compression": func(f *executor.Format, value string) error {
			var err error
			f.Recompress, err = cli.Bool(value)
			return err
		},
	}
}

// refusedAttributes are fields of --output that buildx has and bob hasn't, unless
// they are false, each with the reason.
func refusedAttributes() map[string]string {
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
	annotationField = regexp.MustCompile(`^annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)$`)
	annotationPlace = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)
)

// attribute takes a field of --output that is about the image, as buildx has them.
func (out *output) attribute(key, value string) error {
	if reason, ok := refusedAttributes()[key]; ok {
		if value == "false" {
			return nil
		}
		return fmt.Errorf("%s: %s", key, reason)
	}
	switch key {
	case "push-by-digest":
		var err error
		out.byDigest, err = cli.Bool(value)
		return err
	case "name-canonical": // a name in a store; the registry has the digest anyway
		_, err := cli.Bool(value)
		return err
	case "rewrite-timestamp":
		if on, err := cli.Bool(value); err != nil || !on {
			return fmt.Errorf("rewrite-timestamp=%s: with SOURCE_DATE_EPOCH bob always does", value)
		}
		return nil
	}
	if !annotationField.MatchString(key) && formatAttributes()[key] == nil {
		known := slices.Sorted(maps.Keys(formatAttributes()))
		return fmt.Errorf("unknown field %q; want type, dest, name, tar, push, push-by-digest, annotation.KEY, %s", key, strings.Join(known, ", "))
	}
	out.attributes = append(out.attributes, [2]string{key, value})
	return out.change(&executor.Format{})
}

// change makes the format that the flags ask for that of the output.
func (out *output) change(f *executor.Format) error {
	for _, a := range out.attributes {
		if set := formatAttributes()[a[0]]; set != nil {
			if err := set(f, a[1]); err != nil {
				return fmt.Errorf("%s=%s: %w", a[0], a[1], err)
			}
			continue
		}
		part := annotationField.FindStringSubmatch(a[0])
		if err := annotateOn(f, part[1], part[2], part[3], a[1]); err != nil {
			return fmt.Errorf("%s: %w", a[0], err)
		}
	}
	return nil
}

// annotate takes the argument of --annotation: [place[platform],…:]key=value.
func annotate(f *executor.Format, spec string) error {
	name, value, ok := strings.Cut(spec, "=")
	places, key, placed := strings.Cut(name, ":")
	if !placed {
		places, key = string(executor.OnManifest), name
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

func annotateOn(f *executor.Format, place, platform, key, value string) error {
	a := executor.Annotation{On: executor.AnnotationPlace(place), Key: key, Value: value}
	switch a.On {
	case "":
		a.On = executor.OnManifest
	case executor.OnManifest, executor.OnManifestDescriptor, executor.OnIndex, executor.OnIndexDescriptor:
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
