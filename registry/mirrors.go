package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
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
func (s *mirrors) current(ctx context.Context) (*session, error) { return s.after(ctx, nil, nil) }

// after returns the session to use when failed, if it isn't nil, has failed with
// err: that of the next site, unless somebody else has moved on already. Without
// a next site it returns err.
func (s *mirrors) after(ctx context.Context, failed *session, err error) (*session, error) {
	if err := s.gate.lock(ctx); err != nil {
		return nil, refused(opPullManifest, s.named, err)
	}
	defer s.gate.unlock()
	if failed != nil && failed == s.session && !s.leave(ctx, err) {
		return nil, err
	}
	for s.session == nil {
		if err := s.open(ctx); err != nil && !s.leave(ctx, err) {
			return nil, err
		}
	}
	return s.session, nil
}

// open makes a session at the first site.
func (s *mirrors) open(ctx context.Context) error {
	c, at := s.client, s.sites[0]
	if at.mirror {
		c = c.impatient()
	}
	session, err := c.session(ctx, at, actionsPull)
	if err != nil {
		return err
	}
	session.named = s.named.Context()
	s.session = session
	return nil
}

// leave gives a mirror up because of err and says so; there is always a site
// behind it. It is false at the last site, and when ctx has ended.
func (s *mirrors) leave(ctx context.Context, err error) bool {
	at := s.sites[0]
	if !at.mirror || ctx.Err() != nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Op == opConnect {
		s.client.mu.Lock()
		s.client.down[at.host()] = true
		s.client.mu.Unlock()
	}
	s.session, s.sites = nil, s.sites[1:]
	s.client.notice(fmt.Sprintf("mirror %s of %s: %s; going on at %s", displayRepository(at.ref.Context()),
		displayRepository(s.named.Context()), reason(err), s.sites[0].host()))
	return true
}

// blob opens a blob of the image.
func (s *mirrors) blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	return at.blob(ctx, opPullBlob, d, func(failed *session, err error) (*session, error) {
		return s.after(ctx, failed, err)
	})
}
