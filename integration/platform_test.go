package integration_test

import (
	"archive/tar"
	"maps"
	"path"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bobbuild/bob/integration/harness"
)

// TestBaseOfIndex: the digest in FROM may be an index's or an image's, and the
// platform decides where there is a choice, down to its variant.
func TestBaseOfIndex(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	bases := map[string]*harness.BaseImage{}
	for _, platform := range []string{"linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64"} {
		layer, err := harness.TarLayer([]harness.File{entry(tar.TypeReg, "platform", "", platform)})
		check(t, err)
		bases[platform] = &harness.BaseImage{Layers: []v1.Layer{layer}}
	}
	repository := b.registry.Prefix + "/" + repositoryName(t) + "-base"
	digests, err := b.registry.PushIndex(t.Context(), repository+":many", bases)
	check(t, err)
	for _, test := range []struct {
		name, ref, platform, want string
	}{
		{"tag", ":many", "linux/arm/v7", "linux/arm/v7"},
		{"older variant", ":many", "linux/arm/v6", "linux/arm/v5"},
		{"another architecture", ":many", "linux/arm64", "linux/arm64"},
		{"digest of the index", "@" + digests["index"], "linux/arm/v7", "linux/arm/v7"},
		{"tag and digest of the index", ":many@" + digests["index"], "linux/arm64", "linux/arm64"},
		{"tag that is gone, digest of the index", ":gone@" + digests["index"], "linux/amd64", "linux/amd64"},
		{"digest of the image", "@" + digests["linux/arm/v7"], "linux/arm/v7", "linux/arm/v7"},
		{"digest of the image, tag of the index", ":many@" + digests["linux/arm/v5"], "linux/arm/v5", "linux/arm/v5"},
		{"digest of another platform's image", "@" + digests["linux/arm64"], "linux/amd64", "linux/arm64"},
		{"platform that isn't there", ":many", "linux/s390x", ""},
		{"platform that isn't there, digest of the index", "@" + digests["index"], "linux/s390x", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			b.write(map[string]string{"context/Dockerfile": "FROM " + repository + test.ref + "\nCOPY f /f\n", "context/f": "f\n"})
			result := b.bob("build", "--progress=plain", "--platform="+test.platform, "-t", b.ref, "context")
			if test.want == "" {
				if result.Code != 1 || !matches("linux/s390x.*linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64", result.Stderr) {
					t.Errorf("exit code %d, and the platforms that are there aren't named:\n%s", result.Code, result.Stderr)
				}
				return
			}
			if result.Code != 0 {
				t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
			}
			image, err := lab.Pull(t.Context(), b.ref)
			check(t, err)
			for _, platform := range slices.Sorted(maps.Keys(bases)) {
				digest, err := bases[platform].Layers[0].Digest()
				check(t, err)
				if got := image.Layers[0].Digest.String() == digest.String(); got != (platform == test.want) {
					t.Errorf("built on the image for %s: %v, want the one for %s", platform, got, test.want)
				}
			}
			if got := path.Join(image.Config.OS, image.Config.Architecture, image.Config.Variant); got != test.platform {
				t.Errorf("the image says it is for %s, want %s", got, test.platform)
			}
		})
	}
}
