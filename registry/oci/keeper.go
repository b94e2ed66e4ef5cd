package oci

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Keeper has documents and blobs: a repository of a registry, or a layout.
type Keeper interface {
	// Manifest gets a manifest or index by its digest, verified.
	Manifest(ctx context.Context, want ocispec.Descriptor) (*Document, error)
	// Config gets a config, verified.
	Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// Blob opens a blob as [Image.Blob] says.
	Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	// Fail makes an error of the cause why op failed, on the blob if digest isn't "".
	Fail(op, digest string, cause error) error
}
