package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// exampleRegistry starts a registry for the examples.
func exampleRegistry() (host string, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	h, err := embedded.Handler(dir)
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(h)
	return strings.TrimPrefix(srv.URL, "http://"), func() {
		srv.Close()
		_ = os.RemoveAll(dir)
	}
}

// An image goes up blobs first, its manifest last. A layer may be on its way
// before its digest is known.
func ExampleClient_Push() {
	host, stop := exampleRegistry()
	defer stop()
	if err := pushExample(context.Background(), host+"/hello:1"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// pushed sha256:8dc77cfd80e530e1d5edc8518ac72da8af729ddb9d45cc145c91ec51d19d1f0b
}

func pushExample(ctx context.Context, ref string) error {
	push, err := registry.New(registry.Options{Keychain: registrytest.Anonymous{}}).Push(ctx, ref)
	if err != nil {
		return err
	}

	upload, err := push.Stream(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = upload.Close() }() // does nothing after Commit
	digester := digest.Canonical.Digester()
	size, err := io.WriteString(io.MultiWriter(upload, digester.Hash()), "the layer, as it is made")
	if err != nil {
		return err
	}
	layer := digester.Digest()
	if err := upload.Commit(layer); err != nil {
		return err
	}

	config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, layer)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	err = push.Blob(ctx, d, "", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil })
	if err != nil {
		return err
	}

	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},`+
		`"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ocispec.MediaTypeImageManifest,
		d.MediaType, d.Digest, d.Size, ocispec.MediaTypeImageLayer, layer, size)
	pushed, err := push.Manifest(ctx, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	fmt.Println("pushed", pushed)
	return nil
}

// Nothing of a blob may be believed before its reader returns io.EOF.
func ExampleClient_Resolve() {
	host, stop := exampleRegistry()
	defer stop()
	ctx := context.Background()
	if err := pushExample(ctx, host+"/hello:1"); err != nil {
		fmt.Println(err)
		return
	}

	client := registry.New(registry.Options{Keychain: registrytest.Anonymous{}})
	image, err := client.Resolve(ctx, host+"/hello:1", ocispec.Platform{OS: "linux", Architecture: "amd64"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, layer := range image.Layers {
		blob, err := image.Blob(ctx, layer.Descriptor)
		if err != nil {
			fmt.Println(err)
			return
		}
		content, err := io.ReadAll(blob)
		fmt.Printf("%s, %v, %v\n", content, err, blob.Close())
	}
	// Output:
	// pushed sha256:8dc77cfd80e530e1d5edc8518ac72da8af729ddb9d45cc145c91ec51d19d1f0b
	// the layer, as it is made, <nil>, <nil>
}
