package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
)

// Reach finds out whether a build could use what target names, and returns why it
// could not. Of a host, as "ghcr.io" or "localhost:5000", that is whether it
// answers as a registry does, with a certificate that is trusted; of a reference
// also whether the credentials for it are accepted. What the reference names need
// not be there. A word without dot, colon and slash is a reference, as in Docker.
func (c *Client) Reach(ctx context.Context, target string) error {
	if host, _, slash := strings.Cut(target, "/"); slash || !strings.ContainsAny(host, ".:") && host != "localhost" {
		if _, err := c.Annotations(ctx, target); err != nil && !errors.Is(err, oci.ErrNotFound) {
			return err
		}
		return nil
	}
	reg, err := name.NewRegistry(target)
	if err != nil {
		return fmt.Errorf("parse registry %q: %w", target, err)
	}
	_, err = c.endpoints.find(ctx, &c.retries, reg, c.insecure)
	return err
}
