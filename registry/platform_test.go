package registry_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

// pushIndex pushes an image for each platform, and an index of them as :index,
// in docker's format as :list. It returns the images' digests by platform.
func pushIndex(t *testing.T, c *registry.Client, repo string, names ...string) map[string]digest.Digest {
	t.Helper()
	digests := make(map[string]digest.Digest)
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i, name := range names {
		p := platforms.MustParse(name)
		f := registrytest.NewFixture(t, p, 10+i)
		f.Push(t.Context(), t, c, fmt.Sprintf("%s:part%d", repo, i))
		d := registrytest.Descriptor(f.MediaType, f.Manifest)
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
		digests[name] = d.Digest
	}
	// What BuildKit adds.
	attestation := index.Manifests[0]
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index.Manifests = append([]ocispec.Descriptor{attestation}, index.Manifests...)
	digests["index"] = registrytest.PushDocument(t, c, repo+":index", index.MediaType, registrytest.Encode(t, index))
	index.MediaType = dockerList
	digests["list"] = registrytest.PushDocument(t, c, repo+":list", index.MediaType, registrytest.Encode(t, index))
	return digests
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	repo := host + "/multi"
	digests := pushIndex(t, c, repo, "linux/arm/v6", "linux/amd64", "linux/arm/v7", "linux/arm64", "windows/amd64")
	for wanted, chosen := range map[string]string{
		"linux/amd64":    "linux/amd64",
		"linux/amd64/v3": "linux/amd64",
		"linux/arm64":    "linux/arm64",
		"linux/arm64/v8": "linux/arm64",
		"linux/arm":      "linux/arm/v7",
		"linux/arm/v8":   "linux/arm/v7",
		"linux/arm/v6":   "linux/arm/v6",
		"windows/amd64":  "windows/amd64",
	} {
		for _, ref := range []string{repo + ":index", repo + ":list", repo + "@" + digests["index"].String()} {
			im, err := c.Resolve(t.Context(), ref, platforms.MustParse(wanted))
			if err != nil {
				t.Errorf("%s for %s: %v", ref, wanted, err)
				continue
			}
			if im.Digest != digests[chosen] || im.Reference != repo+"@"+digests[chosen].String() {
				t.Errorf("%s for %s is %s", ref, wanted, im.Reference)
			}
			if root := digests[ref[len(repo)+1:]]; root != "" && im.Root != root {
				t.Errorf("%s has the root %s", ref, im.Root)
			}
		}
	}
	_, err := c.Resolve(t.Context(), repo+":index", platforms.MustParse("linux/s390x"))
	registrytest.CheckError(t, err, host, oci.ErrNotFound,
		"no image for platform linux/s390x; it has linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64, windows/amd64")
	// A manifest that is named itself offers no choice.
	if im, err := c.Resolve(t.Context(), repo+":part1", platforms.MustParse("linux/arm64")); err != nil || im.Root != im.Digest {
		t.Errorf("manifest for another platform: %v", err)
	}
	if im, err := c.Resolve(t.Context(), repo+"@"+digests["linux/arm64"].String(), platforms.MustParse("linux/arm64")); err != nil || im.Root != im.Digest {
		t.Errorf("manifest by digest: %v", err)
	}
}

// TestIndexWithoutPlatforms has the configs tell.
func TestIndexWithoutPlatforms(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	repo := host + "/untold"
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	var want digest.Digest
	for _, name := range []string{"linux/arm64", "linux/amd64"} {
		f := registrytest.NewFixture(t, platforms.MustParse(name), 10)
		f.Push(t.Context(), t, c, repo+":"+strings.ReplaceAll(name, "/", "-"))
		index.Manifests = append(index.Manifests, registrytest.Descriptor(f.MediaType, f.Manifest))
		want = digest.FromBytes(f.Manifest)
	}
	inner := registrytest.Encode(t, index)
	registrytest.PushDocument(t, c, repo+":index", ocispec.MediaTypeImageIndex, inner)
	outer := registrytest.Encode(t, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Manifests: []ocispec.Descriptor{registrytest.Descriptor(ocispec.MediaTypeImageIndex, inner)},
	})
	registrytest.PushDocument(t, c, repo+":outer", ocispec.MediaTypeImageIndex, outer)
	for _, tag := range []string{":index", ":outer"} {
		im, err := c.Resolve(t.Context(), repo+tag, registrytest.AMD64)
		if err != nil || im.Digest != want {
			t.Errorf("%s: %v, %v", tag, im, err)
		}
		_, err = c.Resolve(t.Context(), repo+tag, platforms.MustParse("linux/ppc64le"))
		registrytest.CheckError(t, err, host, oci.ErrNotFound, "it has linux/amd64, linux/arm64")
	}
}

// TestHostileIndexes is what a registry may think of.
func TestHostileIndexes(t *testing.T) {
	t.Parallel()
	const platform = `"platform":{"os":"linux","architecture":"amd64"}`
	child := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`
	for name, tt := range map[string]struct {
		index, want string
		is          error
	}{
		"path as digest":   {`{"manifests":[{"digest":"sha256:../../../etc",` + platform + `}]}`, "entry 0", oci.ErrCorrupt},
		"negative size":    {`{"manifests":[{"size":-1,"digest":"` + digest.FromString("").String() + `",` + platform + `}]}`, "-1 bytes", oci.ErrCorrupt},
		"huge child":       {`{"manifests":[{"size":5000000,"digest":"` + digest.FromString("").String() + `",` + platform + `}]}`, "4 MiB", oci.ErrCorrupt},
		"child's size":     {`{"manifests":[{"size":7,"digest":"` + digest.FromString(child).String() + `",` + platform + `}]}`, "instead of 7", oci.ErrCorrupt},
		"child's digest":   {`{"manifests":[{"size":` + fmt.Sprint(len(child)) + `,"digest":"` + digest.FromString("x").String() + `",` + platform + `}]}`, "digest", oci.ErrCorrupt},
		"child's config":   {`{"manifests":[{"size":` + fmt.Sprint(len(child)) + `,"digest":"` + digest.FromString(child).String() + `",` + platform + `}]}`, "the config's digest", oci.ErrCorrupt},
		"nothing":          {`{"manifests":[]}`, "it has none that can be told", oci.ErrNotFound},
		"null":             {`{"manifests":[null]}`, "entry 0", oci.ErrCorrupt},
		"terminal escapes": {`{"manifests":[{"digest":"` + digest.FromString("").String() + `","platform":{"os":"linux","architecture":"\u001b[2J"}}]}`, "[2J", oci.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := registrytest.NewFaulty(t, nil, registrytest.On("GET", "/manifests/", func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "sha256:") {
					registrytest.Body(ocispec.MediaTypeImageManifest, child)(w, r)
				} else {
					registrytest.Body(ocispec.MediaTypeImageIndex, tt.index)(w, r)
				}
				return true
			}))
			_, err := registrytest.NewClient(t, nil).Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
			registrytest.CheckError(t, err, host, tt.is, tt.want)
			if strings.Contains(err.Error(), "\x1b") {
				t.Error("the error holds an escape sequence")
			}
		})
	}
}

func TestDiffIDMismatch(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10, 20)
	f.Config = registrytest.Encode(t, ocispec.Image{Platform: registrytest.AMD64, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{f.Descs[0].DiffID}}})
	f.Manifest = registrytest.Encode(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		Config:    registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config),
		Layers:    []ocispec.Descriptor{f.Descs[0].Descriptor, f.Descs[1].Descriptor},
	})
	f.Push(t.Context(), t, c, host+"/app:1")
	_, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
	registrytest.CheckError(t, err, host, oci.ErrCorrupt, "the manifest has 2 layers, the config 1")
}

func TestDockerSchema2(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	replaced := strings.NewReplacer(
		ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json",
		ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json",
		ocispec.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip",
	).Replace(string(f.Manifest))
	f.Manifest, f.MediaType = []byte(replaced), "application/vnd.docker.distribution.manifest.v2+json"
	f.Push(t.Context(), t, c, host+"/app:1")
	im := f.Check(t.Context(), t, c, host+"/app:1")
	if im.MediaType != f.MediaType || !strings.Contains(im.Layers[0].MediaType, "docker") {
		t.Errorf("media types %s, %s", im.MediaType, im.Layers[0].MediaType)
	}
}
