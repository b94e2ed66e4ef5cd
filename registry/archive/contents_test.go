package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// names returns the entries of a tar in their order.
func names(t *testing.T, archive []byte) []string {
	t.Helper()
	var found []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" {
			t.Errorf("%s: header %+v depends on where it was made", h.Name, h)
		}
		found = append(found, h.Name)
	}
}

func TestArchives(t *testing.T) {
	t.Parallel()
	a := registrytest.NewArchive(t, "app:1", "localhost:5000/team/app")
	var oci, docker, again bytes.Buffer
	if err := archive.WriteOCI(t.Context(), &oci, a); err != nil {
		t.Fatal(err)
	}
	if err := archive.WriteDocker(t.Context(), &docker, a); err != nil {
		t.Fatal(err)
	}
	if err := archive.WriteDocker(t.Context(), &again, registrytest.NewArchive(t, a.Refs...)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(docker.Bytes(), again.Bytes()) {
		t.Error("the same image makes different archives")
	}
	ociNames, dockerNames := names(t, oci.Bytes()), names(t, docker.Bytes())
	if len(ociNames) != 2+2+4 || !slices.Contains(ociNames, "oci-layout") || slices.Contains(ociNames, "manifest.json") {
		t.Errorf("OCI archive holds %q", ociNames)
	}
	if len(dockerNames) != 3+2+4 || !slices.Contains(dockerNames, "manifest.json") {
		t.Errorf("docker archive holds %q", dockerNames)
	}
	for _, want := range []string{
		`"org.opencontainers.image.ref.name":"1"`, `"io.containerd.image.name":"docker.io/library/app:1"`,
		`"io.containerd.image.name":"localhost:5000/team/app:latest"`, `"platform":{"architecture":"amd64","os":"linux"}`,
	} {
		if !bytes.Contains(oci.Bytes(), []byte(want)) {
			t.Errorf("OCI archive lacks %s", want)
		}
	}
	if want := `"RepoTags":["app:1","localhost:5000/team/app:latest"]`; !bytes.Contains(docker.Bytes(), []byte(want)) {
		t.Errorf("docker archive lacks %s", want)
	}

	dir := t.TempDir()
	for name, content := range map[string][]byte{"oci.tar": oci.Bytes(), "docker.tar": docker.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	registrytest.Inspect(t, "oci-archive:"+filepath.Join(dir, "oci.tar")+":1")
	registrytest.Inspect(t, "docker-archive:"+filepath.Join(dir, "docker.tar")+":app:1")
	registrytest.Inspect(t, "oci-archive:"+filepath.Join(dir, "docker.tar")+":latest")
}

// newIndex is newArchive under an index, as of two platforms.
func newIndex(t *testing.T, refs ...string) archive.Contents {
	t.Helper()
	a := registrytest.NewArchive(t, refs...)
	amd := registrytest.Descriptor(ocispec.MediaTypeImageManifest, a.Images[0].Manifest)
	amd.Platform = &registrytest.AMD64
	other := a.Images[0]
	other.Manifest = append(slices.Clip(other.Manifest), '\n')
	arm := registrytest.Descriptor(ocispec.MediaTypeImageManifest, other.Manifest)
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	a.Images = append(a.Images, other)
	a.IndexType = ocispec.MediaTypeImageIndex
	a.Index = registrytest.Encode(t, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: a.IndexType, Manifests: []ocispec.Descriptor{amd, arm},
	})
	a.Annotations = map[string]string{"org.example.note": "n"}
	return a
}

// An index is one entry of index.json with its manifests behind it; the images of
// both are found by their platforms.
func TestArchivedIndex(t *testing.T) {
	t.Parallel()
	a := newIndex(t, "app:1")
	dir := t.TempDir()
	if err := archive.WriteOCIDir(t.Context(), dir, a); err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	body, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index.json: %v: %s", err, body)
	}
	entry := index.Manifests[0]
	if entry.MediaType != ocispec.MediaTypeImageIndex || entry.Digest != digest.FromBytes(a.Index) || entry.Platform != nil ||
		entry.Annotations["org.example.note"] != "n" || entry.Annotations[ocispec.AnnotationRefName] != "1" {
		t.Errorf("index.json: %s", body)
	}
	for i, p := range []ocispec.Platform{registrytest.AMD64, {OS: "linux", Architecture: "arm", Variant: "v7"}} {
		im, err := (&archive.LayoutImage{Dir: dir, Tag: "1"}).Resolve(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if im.Digest != digest.FromBytes(a.Images[i].Manifest) {
			t.Errorf("%s is %s", p.Architecture, im.Digest)
		}
	}
	var packed bytes.Buffer
	if err := archive.WriteOCI(t.Context(), &packed, a); err != nil {
		t.Fatal(err)
	}
	if got := names(t, packed.Bytes()); len(got) != 2+2+6 {
		t.Errorf("the tar holds %q", got)
	}
	if err := archive.WriteDocker(t.Context(), io.Discard, a); err == nil || !strings.Contains(err.Error(), "no index") {
		t.Errorf("docker's format took an index: %v", err)
	}
}

func TestUnnamedArchives(t *testing.T) {
	t.Parallel()
	a := registrytest.NewArchive(t)
	dir := t.TempDir()
	for source, write := range map[string]func(context.Context, io.Writer, archive.Contents) error{
		"oci-archive":    archive.WriteOCI,
		"docker-archive": archive.WriteDocker,
	} {
		path := filepath.Join(dir, source)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(write(t.Context(), f, a), f.Close()); err != nil {
			t.Fatal(err)
		}
		registrytest.Inspect(t, source+":"+path)
	}
}

func TestOCIDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "layout")
	for _, ref := range []string{"app:1", "app:2", "other/app:2"} {
		if err := archive.WriteOCIDir(t.Context(), dir, registrytest.NewArchive(t, ref)); err != nil {
			t.Fatal(err)
		}
	}
	var index ocispec.Index
	body, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &index); err != nil || len(index.Manifests) != 2 {
		t.Errorf("index.json: %v: %s", err, body)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil || len(blobs) != 4 {
		t.Errorf("blobs: %v, %v", blobs, err)
	}
	registrytest.Inspect(t, "oci:"+dir+":1")
	registrytest.Inspect(t, "oci:"+dir+":2")
	if umoci, err := exec.LookPath("umoci"); err == nil {
		bundle := filepath.Join(t.TempDir(), "bundle")
		output, err := exec.CommandContext(t.Context(), umoci, "unpack", "--rootless", "--image", dir+":1", bundle).CombinedOutput()
		if err != nil {
			t.Fatalf("umoci unpack: %v\n%s", err, output)
		}
		if got, err := os.ReadFile(filepath.Join(bundle, "rootfs", "two")); err != nil || string(got) != strings.Repeat("two", 1000) {
			t.Errorf("umoci unpacked %q, %v", got, err)
		}
	}
}

func TestOCIDirRefuses(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(full, "thesis.txt")
	damaged := t.TempDir()
	for name, content := range map[string]string{"oci-layout": "{}", "index.json": "{"} {
		if err := os.WriteFile(filepath.Join(damaged, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := t.TempDir()
	linked := t.TempDir()
	if err := os.WriteFile(filepath.Join(linked, "oci-layout"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(linked, "blobs")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{full, file, damaged, linked} {
		if err := archive.WriteOCIDir(t.Context(), dir, registrytest.NewArchive(t, "a:1")); err == nil {
			t.Errorf("%s was taken", dir)
		} else {
			t.Log(err)
		}
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside of the directory: %v, %v", entries, err)
	}
}

// TestArchiveLies checks that no archive holds what its digests don't say.
func TestArchiveLies(t *testing.T) {
	t.Parallel()
	errDisk := errors.New("disk on fire")
	content := func(s string) func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
		return func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(s)), nil
		}
	}
	for name, change := range map[string]func(*archive.Contents){
		"too short": func(a *archive.Contents) { a.Open = content("x") },
		"too long":  func(a *archive.Contents) { a.Open = content(strings.Repeat("x", 1<<20)) },
		"other": func(a *archive.Contents) {
			a.Open = func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(make([]byte, d.Size))), nil
			}
		},
		"does not open": func(a *archive.Contents) {
			a.Open = func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) { return nil, errDisk }
		},
		"digest":       func(a *archive.Contents) { a.Images[0].Layers[0].Digest = "sha256:../../etc/passwd" },
		"config":       func(a *archive.Contents) { a.Images[0].Config = []byte("{") },
		"name":         func(a *archive.Contents) { a.Refs = []string{"UPPER"} },
		"two images":   func(a *archive.Contents) { a.Images = append(a.Images, a.Images[0]) },
		"digest, name": func(a *archive.Contents) { a.Refs = []string{"a@" + digest.FromString("").String()} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, write := range []func(archive.Contents) error{
				func(a archive.Contents) error { return archive.WriteOCI(t.Context(), io.Discard, a) },
				func(a archive.Contents) error { return archive.WriteDocker(t.Context(), io.Discard, a) },
				func(a archive.Contents) error {
					dir := t.TempDir()
					err := archive.WriteOCIDir(t.Context(), dir, a)
					if _, statErr := os.Stat(filepath.Join(dir, "index.json")); statErr == nil {
						t.Error("there is an index.json")
					}
					return err
				},
			} {
				a := registrytest.NewArchive(t, "a:1")
				change(&a)
				if err := write(a); err == nil {
					t.Error("no error")
				} else {
					t.Log(err)
				}
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := archive.WriteOCI(ctx, io.Discard, registrytest.NewArchive(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
