package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// A Source is where an image is got from: the first of its sites that can be used, and
// those behind it for when that one fails. It is an [oci.Keeper], and safe for concurrent
// use.
type Source struct {
	client *Client
	named  name.Reference // as it was asked for

	gate    *semaphore.Weighted // guards what follows
	session *session            // at the first site; nil: not begun
	sites   []conf.Site
}

// Source returns where the image, index or artifact that ref names is got from: mirrors
// that [Options.Conf] names first. It reaches nothing yet.
func (c *Client) Source(ref string) (*Source, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	sites, err := c.conf.PullSites(parsed)
	if err != nil {
		return nil, refused(oci.OpPullManifest, parsed, err)
	}
	if c.conf != nil && c.conf.Searches != "" && parsed.Context().RegistryStr() == name.DefaultRegistry && c.news.first("searches") {
		c.notice("unqualified-search-registries in " + c.conf.Searches + " is not followed: names without a host are Docker Hub's")
	}
	sites = slices.DeleteFunc(sites, func(at conf.Site) bool { return at.Mirror && c.news.isLost(at.Host()) })
	return &Source{client: c, named: parsed, gate: semaphore.NewWeighted(1), sites: sites}, nil
}

// refused is an operation that isn't even tried.
func refused(op string, ref name.Reference, err error) *Error {
	return &Error{
		Op: op, Host: reference.Host(ref.Context().Registry), Repository: reference.Repository(ref.Context()),
		Reference: reference.String(ref), Err: err, permanent: true,
	}
}

// current returns the session to use.
func (src *Source) current(ctx context.Context) (*session, error) { return src.after(ctx, nil, nil) }

// after returns the session to use. If failed isn't nil it has failed with err, and the
// next site is used, unless somebody else has moved on already. Without a next site the
// error is err.
func (src *Source) after(ctx context.Context, failed *session, err error) (*session, error) {
	if err := src.gate.Acquire(ctx, 1); err != nil {
		return nil, refused(oci.OpPullManifest, src.named, err)
	}
	defer src.gate.Release(1)
	if failed != nil && failed == src.session && !src.leave(ctx, err) {
		return nil, err
	}
	for src.session == nil {
		if err := src.open(ctx); err != nil && !src.leave(ctx, err) {
			return nil, err
		}
	}
	return src.session, nil
}

// open makes a session at the first site.
func (src *Source) open(ctx context.Context) error {
	c, at := src.client, src.sites[0]
	if at.Mirror {
		c = c.impatient()
	}
	session, err := c.session(ctx, at, actionsPull)
	if err != nil {
		return err
	}
	session.named = src.named.Context()
	src.session = session
	return nil
}

// leave gives a mirror up because of err and says so; there is always a site
// behind it. It is false at the last site, and when ctx has ended.
func (src *Source) leave(ctx context.Context, err error) bool {
	at := src.sites[0]
	if !at.Mirror || ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Op == opConnect {
		src.client.news.lost(at.Host())
	}
	src.session, src.sites = nil, src.sites[1:]
	src.client.notice(fmt.Sprintf("mirror %s of %s: %s; going on at %s", reference.Repository(at.Ref.Context()),
		reference.Repository(src.named.Context()), reason(err), src.sites[0].Host()))
	return true
}

// ask has f ask the sites, one after the other until one answers.
func ask[T any](ctx context.Context, src *Source, f func(*session) (T, error)) (T, error) {
	s, err := src.current(ctx)
	for err == nil {
		var answer T
		if answer, err = f(s); err == nil {
			return answer, nil
		}
		s, err = src.after(ctx, s, err)
	}
	var none T
	return none, err
}

// Root gets the manifest or index that the reference names, verified.
func (src *Source) Root(ctx context.Context) (*oci.Document, error) {
	return ask(ctx, src, func(s *session) (*oci.Document, error) { return s.root(ctx) })
}

// Manifest implements oci.Keeper.
func (src *Source) Manifest(ctx context.Context, want ocispec.Descriptor) (*oci.Document, error) {
	return ask(ctx, src, func(s *session) (*oci.Document, error) { return s.manifest(ctx, want.Digest.String(), want) })
}

// Config implements oci.Keeper.
func (src *Source) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return ask(ctx, src, func(s *session) ([]byte, error) { return s.config(ctx, d) })
}

// Blob implements oci.Keeper.
func (src *Source) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := src.current(ctx)
	if err != nil {
		return nil, err
	}
	return at.blob(ctx, oci.OpPullBlob, d, src)
}

// Fail implements oci.Keeper.
func (src *Source) Fail(op, digest string, cause error) error {
	return &Error{
		Op: op, Host: reference.Host(src.named.Context().Registry), Repository: reference.Repository(src.named.Context()),
		Reference: reference.String(src.named), Digest: digest, Err: cause,
	}
}
