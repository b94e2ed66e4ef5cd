package main

import (
	"reflect"
	"testing"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What an output says of its own counts before the flags, which are for all.
func TestFormats(t *testing.T) {
	t.Parallel()
	nine, nineteen := 9, 19
	arm := &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	note := func(on image.AnnotationPlace, p *ocispec.Platform, value string) image.Annotation {
		return image.Annotation{On: on, Platform: p, Key: "org.example.note", Value: value}
	}
	for _, tt := range []struct {
		args          string
		pushed, other image.Format // of the registry, and of the file
	}{
		{"", image.Format{}, image.Format{}},
		{
			"--oci-mediatypes=false --compression gzip --compression-level 9 --force-compression",
			image.Format{DockerTypes: true, Recompress: true, Compression: snapshot.Compression{Method: snapshot.Gzip, Level: &nine}},
			image.Format{DockerTypes: true, Recompress: true, Compression: snapshot.Compression{Method: snapshot.Gzip, Level: &nine}},
		},
		{
			"--compression uncompressed -o type=registry,compression=zstd,compression-level=19",
			image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd, Level: &nineteen}},
			image.Format{Compression: snapshot.Compression{Method: snapshot.Uncompressed}},
		},
		{
			"--platform linux/amd64,linux/arm64 --annotation org.example.note=a --annotation index,manifest[linux/arm64]:org.example.note=b=c" +
				" -o type=image,push=true,annotation-manifest-descriptor.org.example.note=d",
			image.Format{Annotations: []image.Annotation{
				note(image.OnManifest, nil, "a"), note(image.OnIndex, nil, "b=c"), note(image.OnManifest, arm, "b=c"),
				note(image.OnManifestDescriptor, nil, "d"),
			}},
			image.Format{Annotations: []image.Annotation{
				note(image.OnManifest, nil, "a"), note(image.OnIndex, nil, "b=c"), note(image.OnManifest, arm, "b=c"),
			}},
		},
		{"--provenance=false --sbom=false --attest type=sbom,disabled=true", image.Format{}, image.Format{}},
	} {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			o := parsedOptions(t, "-t h/a -o type=oci,dest=/x "+tt.args)
			if !reflect.DeepEqual(o.build.Format, tt.pushed) {
				t.Errorf("pushed as %+v, want %+v", o.build.Format, tt.pushed)
			}
			if got := o.build.Outputs[0].Format; !reflect.DeepEqual(got, tt.other) {
				t.Errorf("written as %+v, want %+v", got, tt.other)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{
		"":                                      1,
		"--platform local":                      1,
		"--platform linux/arm64":                1,
		"--platform linux/arm64,linux/arm64/v8": 1,
		"--platform linux/amd64,linux/arm/v7 --platform linux/arm64": 3,
	} {
		if o := parsedOptions(t, args); len(o.platforms) != want || o.plan.PlatformGiven != (args != "") {
			t.Errorf("%q: %v, given: %v", args, o.platforms, o.plan.PlatformGiven)
		}
	}
}
