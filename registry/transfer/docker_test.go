package transfer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// file is an entry of a tar: a link if it has a target.
type file struct{ name, body, target string }

// writeTar makes a tar and returns its path.
func writeTar(t *testing.T, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Size: int64(len(f.body)), Mode: 0o644}
		if f.target != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.target
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return writeBytes(t, b.Bytes())
}

func writeBytes(t *testing.T, body []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, body, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// legacy are the files of an archive as docker has saved images for long: layers
// that are no blobs, one of them a link to another.
type legacy struct {
	config string
	layers []string // uncompressed; the third is the first
}

func newLegacy(t *testing.T) *legacy {
	t.Helper()
	l := &legacy{}
	image := ocispec.Image{Platform: registrytest.AMD64, RootFS: ocispec.RootFS{Type: "layers"}}
	image.Config.Env = []string{"A=b"}
	for _, name := range []string{"one", "two", "one"} {
		packed, id := registrytest.TarLayer(t, name, strings.Repeat(name, 1000))
		l.layers = append(l.layers, string(unpack(t, packed)))
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, id)
	}
	l.config = string(registrytest.Encode(t, image))
	return l
}

func unpack(t *testing.T, packed []byte) []byte {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func (l *legacy) configName() string { return digest.FromString(l.config).Encoded() + ".json" }

func (l *legacy) entry(tags string) string {
	return `{"Config":"` + l.configName() + `","RepoTags":[` + tags + `],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}`
}

func (l *legacy) files(manifest string) []file {
	return []file{
		{"a/layer.tar", l.layers[0], ""},
		{"b/layer.tar", l.layers[1], ""},
		{"c/layer.tar", "", "../a/layer.tar"},
		{l.configName(), l.config, ""},
		{"manifest.json", manifest, ""},
	}
}

// check compares what was pushed with the archive.
func (l *legacy) check(t *testing.T, c *registry.Client, ref, manifestType, layerType string) {
	t.Helper()
	im, err := c.Resolve(t.Context(), ref, registrytest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	if im.MediaType != manifestType || string(im.Config) != l.config || len(im.Layers) != len(l.layers) {
		t.Fatalf("%s is another image: %s", ref, im.Raw)
	}
	for i, layer := range im.Layers {
		packed, err := registrytest.ReadBlob(t.Context(), im, layer.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		if layer.MediaType != layerType || string(unpack(t, packed)) != l.layers[i] {
			t.Errorf("layer %d (%s) has other bytes", i, layer.MediaType)
		}
	}
}

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

func TestDockerArchive(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	host := registrytest.ServeEmbedded(t)
	l := newLegacy(t)
	other := `{"Config":"none.json","RepoTags":["x/y:1"],"Layers":[]}`
	single := writeTar(t, l.files("["+l.entry(`"me/app:5"`)+"]")...)
	several := writeTar(t, l.files("["+other+","+l.entry(`"me/app:5","docker.io/me/app:latest"`)+"]")...)
	body, err := os.ReadFile(single)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	_, err = zw.Write(body)
	if err := errors.Join(err, zw.Close()); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	for i, src := range []string{
		single, "docker-archive:" + single, "docker-archive:" + single + ":me/app:5", writeBytes(t, packed.Bytes()),
		"docker-archive:" + several + ":docker.io/me/app:5", "docker-archive:" + several + ":me/app",
	} {
		ref := host + "/app" + string(rune('0'+i)) + ":1"
		if _, err := transfer.Copy(t.Context(), c, src, ref, transfer.Options{TempDir: temp}); err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		l.check(t, c, ref, dockerManifest, dockerLayer)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	// In a layout it's OCI's.
	layout := "oci:" + t.TempDir()
	if _, err := transfer.Copy(t.Context(), c, single, layout, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Copy(t.Context(), c, layout, host+"/oci:1", transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	l.check(t, c, host+"/oci:1", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip)

	for src, want := range map[string]string{several: "name one of them", "docker-archive:" + several + ":me/other": "no image me/other:latest"} {
		_, err := transfer.Copy(t.Context(), c, src, host+"/not:1", transfer.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "x/y:1, me/app:5") {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestDockerArchiveInspect(t *testing.T) {
	t.Parallel()
	l := newLegacy(t)
	manifest := "[" + l.entry(`"me/app:5"`) + "]"
	in, err := transfer.Inspect(t.Context(), registrytest.NewClient(t, nil), writeTar(t, l.files(manifest)...), transfer.InspectOptions{Platform: &registrytest.AMD64})
	if err != nil {
		t.Fatal(err)
	}
	if in.Digest != "" || string(in.Raw) != manifest || string(in.Config) != l.config || len(in.Manifest.Layers) != 3 {
		t.Errorf("%+v", in)
	}
	for i, d := range in.Manifest.Layers {
		if d.Size != int64(len(l.layers[i])) || d.Digest != digest.FromString(l.layers[i]) {
			t.Errorf("layer %d: %+v", i, d)
		}
	}
}

func TestDockerArchiveWritten(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	host := registrytest.ServeEmbedded(t)
	a := registrytest.NewArchive(t)
	dir := t.TempDir()
	if err := archive.WriteOCIDir(t.Context(), dir+"/layout", a); err != nil {
		t.Fatal(err)
	}
	out := dir + "/out.tar"
	if _, err := transfer.Copy(t.Context(), c, dir+"/layout", "docker-archive:"+out+":me/app:5", transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	registrytest.Inspect(t, "docker-archive:"+out+":me/app:5")
	// It is a layout too, which keeps the digest, and layers that are compressed
	// already stay so.
	for src, mediaType := range map[string]string{out: ocispec.MediaTypeImageManifest, "docker-archive:" + out: dockerManifest} {
		d, err := transfer.Copy(t.Context(), c, src, host+"/app:1", transfer.Options{})
		if err != nil || d.MediaType != mediaType || (src == out) != (d.Digest == digest.FromBytes(a.Images[0].Manifest)) {
			t.Errorf("%s: %+v, %v", src, d, err)
		}
		im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		for i, layer := range im.Layers {
			if layer.Digest != a.Images[0].Layers[i].Digest {
				t.Errorf("%s: layer %d was compressed anew", src, i)
			}
		}
	}
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	l := newLegacy(t)
	a := registrytest.NewArchive(t)
	manifest := "[" + l.entry("") + "]"
	good := l.files(manifest)
	index := func(d ocispec.Descriptor) file {
		return file{name: "index.json", body: string(registrytest.Encode(t, ocispec.Index{Manifests: []ocispec.Descriptor{d}}))}
	}
	blob := func(body []byte) file {
		return file{name: "blobs/sha256/" + digest.FromBytes(body).Encoded(), body: string(body)}
	}
	root := registrytest.Descriptor(ocispec.MediaTypeImageManifest, a.Images[0].Manifest)
	lie := registrytest.Descriptor(ocispec.MediaTypeImageManifest, a.Images[0].Config)
	config := digest.FromString(l.config).Encoded()
	replace := func(n int, f file) []file {
		files := append([]file(nil), good...)
		files[n] = f
		return files
	}
	for name, tt := range map[string]struct {
		files []file
		want  string
	}{
		"empty":                {nil, "empty"},
		"neither":              {[]file{{name: "x"}}, "neither an OCI"},
		"outside":              {append([]file{{name: "../x"}}, good...), `"../x" lies outside`},
		"absolute":             {append([]file{{name: "/etc/passwd"}}, good...), `"/etc/passwd" lies outside`},
		"manifest not JSON":    {l.files("x"), "manifest.json: invalid character"},
		"manifest huge":        {l.files("[" + strings.Repeat(" ", 5<<20) + "]"), "larger than the 4 MiB"},
		"no image":             {l.files("[]"), "no image"},
		"config outside":       {l.files(strings.Replace(manifest, l.configName(), "../../etc/passwd", 1)), "../../etc/passwd"},
		"config missing":       {replace(3, file{name: "x"}), l.configName()},
		"config changed":       {replace(3, file{name: l.configName(), body: l.config + " "}), "the config " + config},
		"config huge":          {replace(3, file{name: l.configName(), body: strings.Repeat(" ", 9<<20)}), "larger than the 8 MiB"},
		"layer missing":        {replace(1, file{name: "x"}), "b/layer.tar is missing"},
		"layer link to itself": {replace(2, file{name: "c/layer.tar", target: "layer.tar"}), "c/layer.tar is missing"},
		"layer link outside":   {replace(2, file{name: "c/layer.tar", target: "../../../../etc/passwd"}), "c/layer.tar is missing"},
		"layer changed":        {replace(1, file{name: "b/layer.tar", body: l.layers[0]}), "b/layer.tar: content is not what was promised"},
		"layer short":          {replace(1, file{name: "b/layer.tar", body: l.layers[1][:100]}), "b/layer.tar: content is not what was promised"},
		"layer broken gzip":    {replace(1, file{name: "b/layer.tar", body: "\x1f\x8bxx"}), "b/layer.tar"},
		"too few layers":       {l.files(strings.Replace(manifest, `,"c/layer.tar"`, "", 1)), "2 layers, the config 3"},
		"index huge":           {[]file{{name: "index.json", body: strings.Repeat(" ", 5<<20)}}, "larger than the 4 MiB"},
		"index digest":         {[]file{index(ocispec.Descriptor{Digest: "sha256:../../etc/passwd"})}, "../../etc/passwd"},
		"no such manifest":     {[]file{index(root)}, "no blob " + root.Digest.String()},
		"manifest changed":     {[]file{index(lie), {name: "blobs/sha256/" + lie.Digest.Encoded(), body: string(a.Images[0].Manifest)}}, "bytes instead of"},
		"blobs missing":        {[]file{index(root), blob(a.Images[0].Manifest)}, "no blob"},
		"blob changed": {[]file{
			index(root), blob(a.Images[0].Manifest), blob(a.Images[0].Config),
			{name: "blobs/sha256/" + a.Images[0].Layers[0].Digest.Encoded(), body: strings.Repeat("x", int(a.Images[0].Layers[0].Size))},
			{name: "blobs/sha256/" + a.Images[0].Layers[1].Digest.Encoded(), body: strings.Repeat("x", int(a.Images[0].Layers[1].Size))},
		}, "another digest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, writeTar(t, tt.files...), tt.want)
		})
	}
	const much = maxUnpacked + 1
	for name, archive := range map[string]string{
		"bomb":            packFile(t, writeTar(t, append(good, file{name: "zeros", body: strings.Repeat("\x00", much)})...)),
		"bomb behind":     packFile(t, writeTar(t, good...), make([]byte, much)...),
		"bomb in a layer": writeTar(t, replace(1, file{name: "b/layer.tar", body: string(pack(t, make([]byte, much)))})...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const want = "more than the 1 MiB that --max-unpacked-size allows"
			checkRefused(t, archive, want)
			_, err := transfer.Inspect(t.Context(), registrytest.NewClient(t, nil), archive, transfer.InspectOptions{MaxUnpacked: maxUnpacked, TempDir: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("inspect: %v, want %q", err, want)
			}
		})
	}
	whole, err := os.ReadFile(writeTar(t, good...))
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{
		"no bytes": {}, "no tar": bytes.Repeat([]byte("x"), 1024), "broken gzip": append([]byte{0x1f, 0x8b}, whole...),
		"cut in a header": whole[:300], "cut in a layer": whole[:700], "cut between": whole[:len(whole)-2048],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, writeBytes(t, body), "")
		})
	}
}

// maxUnpacked is what an archive may have unpacked in the tests of hostile ones.
const maxUnpacked = 1 << 20

// pack compresses by gzip.
func pack(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	if _, err := zw.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// packFile compresses a file with what comes behind it, and returns the path.
func packFile(t *testing.T, name string, behind ...byte) string {
	t.Helper()
	plain, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return writeBytes(t, pack(t, append(plain, behind...)))
}

// checkRefused wants an archive to be refused with its name and a reason, and no
// manifest to be pushed.
func checkRefused(t *testing.T, archive, want string) {
	t.Helper()
	target, host := newDiary(t)
	_, err := transfer.Copy(t.Context(), registrytest.NewClient(t, nil), archive, host+"/app:1", transfer.Options{TempDir: t.TempDir(), MaxUnpacked: maxUnpacked})
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	if !strings.Contains(err.Error(), archive) || !strings.Contains(err.Error(), want) {
		t.Errorf("error lacks %q or %q", archive, want)
	}
	if puts := target.take("PUT /v2/app/manifests/"); len(puts) > 0 {
		t.Errorf("manifests were pushed: %s", puts)
	}
}
