package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mirrors is where an image is got from: the first of its sites that can be
// used, and those behind it for when that one fails. It is safe for concurrent
// use.
type mirrors struct {
	client *Client
	named  name.Reference // as it was asked for

	gate    gate     // guards what follows
	session *session // at the first site; nil: not begun
	sites   []site
}

// mirrors returns where to look for ref. It reaches nothing yet.
func (c *Client) mirrors(ref name.Reference) (*mirrors, error) {
	sites, err := c.conf.pullSites(ref)
	if err != nil {
		return nil, refused(opPullManifest, ref, err)
	}
	if c.conf != nil && c.conf.searches != "" && ref.Context().RegistryStr() == name.DefaultRegistry && c.first("searches") {
		c.notice("unqualified-search-registries in " + c.conf.searches + " is not followed: names without a host are Docker Hub's")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sites = slices.DeleteFunc(sites, func(at site) bool { return at.mirror && c.down[at.host()] })
	return &mirrors{client: c, named: ref, gate: newGate(), sites: sites}, nil
}

// refused is an operation that isn't even tried.
func refused(op string, ref name.Reference, err error) *Error {
	return &Error{
		Op: op, Host: displayHost(ref.Context().Registry), Repository: displayRepository(ref.Context()),
		Reference: displayReference(ref), Err: err, permanent: true,
	}
}

// current returns the session to use.
func (m *mirrors) current(ctx context.Context) (*session, error) { return m.after(ctx, nil, nil) }

// after returns the session to use when failed, if it isn't nil, has failed with
// err: that of the next site, unless somebody else has moved on already. Without
// a next site it returns err.
func (m *mirrors) after(ctx context.Context, failed *session, err error) (*session, error) {
	if err := m.gate.lock(ctx); err != nil {
		return nil, refused(opPullManifest, m.named, err)
	}
	defer m.gate.unlock()
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
func (m *mirrors) open(ctx context.Context) error {
	c, at := m.client, m.sites[0]
	if at.mirror {
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
func (m *mirrors) leave(ctx context.Context, err error) bool {
	at := m.sites[0]
	if !at.mirror || ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Op == opConnect {
		m.client.mu.Lock()
		m.client.down[at.host()] = true
		m.client.mu.Unlock()
	}
	m.session, m.sites = nil, m.sites[1:]
	m.client.notice(fmt.Sprintf("mirror %s of %s: %s; going on at %s", displayRepository(at.ref.Context()),
		displayRepository(m.named.Context()), reason(err), m.sites[0].host()))
	return true
}

// ask has f ask the sites, one after the other until one answers.
func ask[T any](ctx context.Context, m *mirrors, f func(*session) (T, error)) (T, error) {
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

// root gets what the reference names.
func (m *mirrors) root(ctx context.Context) (*document, error) {
	return ask(ctx, m, func(s *session) (*document, error) { return s.root(ctx) })
}

func (m *mirrors) manifest(ctx context.Context, identifier string, want ocispec.Descriptor) (*document, error) {
	return ask(ctx, m, func(s *session) (*document, error) { return s.manifest(ctx, identifier, want) })
}

func (m *mirrors) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return ask(ctx, m, func(s *session) ([]byte, error) { return s.config(ctx, d) })
}

func (m *mirrors) blob(ctx context.Context, op string, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := m.current(ctx)
	if err != nil {
		return nil, err
	}
	return at.blob(ctx, op, d, func(failed *session, err error) (*session, error) {
		return m.after(ctx, failed, err)
	})
}

func (m *mirrors) reference(d digest.Digest) string {
	return displayRepository(m.named.Context()) + "@" + d.String()
}

func (m *mirrors) fail(op, digest string, cause error) *Error {
	return &Error{
		Op: op, Host: displayHost(m.named.Context().Registry), Repository: displayRepository(m.named.Context()),
		Reference: displayReference(m.named), Digest: digest, Err: cause,
	}
}
