package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/name"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/bobbuild/bob/registry/conf"
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
func (m *Source) current(ctx context.Context) (*session, error) { return m.after(ctx, nil, nil) }

// after returns the session to use. If failed isn't nil it has failed with err, and the
// next site is used, unless somebody else has moved on already. Without a next site the
// error is err.
func (m *Source) after(ctx context.Context, failed *session, err error) (*session, error) {
	if err := m.gate.Acquire(ctx, 1); err != nil {
		return nil, refused(oci.OpPullManifest, m.named, err)
	}
	defer m.gate.Release(1)
	if failed != nil && failed == m.session && !m.leave(ctx, err) {
		return nil, err
	}
	for m.session == nil {
		if err := m.open(ctx); err != nil && !m.leave(ctx, err) {
			return nil, err
		}
	}
	return m.session, nil
}

// open makes a session at the first site.
func (m *Source) open(ctx context.Context) error {
	c, at := m.client, m.sites[0]
	if at.Mirror {
		c = c.impatient()
	}
	session, err := c.session(ctx, at, actionsPull)
	if err != nil {
		return err
	}
	session.named = m.named.Context()
	m.session = session
	return nil
}

// leave gives a mirror up because of err and says so; there is always a site
// behind it. It is false at the last site, and when ctx has ended.
func (m *Source) leave(ctx context.Context, err error) bool {
	at := m.sites[0]
	if !at.Mirror || ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Op == opConnect {
		m.client.news.lost(at.Host())
	}
	m.session, m.sites = nil, m.sites[1:]
	m.client.notice(fmt.Sprintf("mirror %s of %s: %s; going on at %s", reference.Repository(at.Ref.Context()),
		reference.Repository(m.named.Context()), reason(err), m.sites[0].Host()))
	return true
}

// ask has f ask the sites, one after the other until one answers.
func ask[T any](ctx context.Context, m *Source, f func(*session) (T, error)) (T, error) {
	s, err := m.current(ctx)
	for err == nil {
		var answer T
		if answer, err = f(s); err == nil {
			return answer, nil
		}
		s, err = m.after(ctx, s, err)
	}
	var none T
	return none, err
}

// Root gets the manifest or index that the reference names, verified.
func (m *Source) Root(ctx context.Context) (*oci.Document, error) {
	return ask(ctx, m, func(s *session) (*oci.Document, error) { return s.root(ctx) })
}

// Manifest implements oci.Keeper.
func (m *Source) Manifest(ctx context.Context, want ocispec.Descriptor) (*oci.Document, error) {
	return ask(ctx, m, func(s *session) (*oci.Document, error) { return s.manifest(ctx, want.Digest.String(), want) })
}

// Config implements oci.Keeper.
func (m *Source) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return ask(ctx, m, func(s *session) ([]byte, error) { return s.config(ctx, d) })
}

// Blob implements oci.Keeper.
func (m *Source) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := m.current(ctx)
	if err != nil {
		return nil, err
	}
	return at.blob(ctx, oci.OpPullBlob, d, func(failed *session, err error) (*session, error) {
		return m.after(ctx, failed, err)
	})
}

// Fail implements oci.Keeper.
func (m *Source) Fail(op, digest string, cause error) error {
	return &Error{
		Op: op, Host: reference.Host(m.named.Context().Registry), Repository: reference.Repository(m.named.Context()),
		Reference: reference.String(m.named), Digest: digest, Err: cause,
	}
}
