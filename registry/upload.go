package registry

import (
	"context"
	"net/http"
	"net/url"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
)

// begin starts an upload and returns where it goes on.
func (s *session) begin(ctx context.Context, op, dgst string) (location *url.URL, err error) {
	err = s.client.run(ctx, op+" "+s.subject(dgst), func() error {
		location, err = s.beginOnce(ctx, op, dgst)
		return err
	})
	return location, err
}

// beginOnce is begin without a second attempt.
func (s *session) beginOnce(ctx context.Context, op, dgst string) (location *url.URL, err error) {
	c := s.start(op, dgst)
	c.accept = uploadBegun()
	err = s.perform(ctx, c, func(resp *http.Response) (err error) {
		location, err = s.location(c, resp)
		return err
	})
	return location, err
}

// start is the request that starts an upload.
func (s *session) start(op, dgst string) *call {
	return &call{op: op, digest: dgst, Call: wire.Call{Method: http.MethodPost, URL: s.url("blobs/uploads/")}}
}

// subject is a blob and the repository it goes to, for notices.
func (s *session) subject(dgst string) string {
	repo := reference.Repository(s.ref.Context())
	if dgst == "" {
		return repo
	}
	return dgst + " to " + repo
}

// location reads where an upload goes on.
func (s *session) location(c *call, resp *http.Response) (*url.URL, error) {
	u, err := s.endpoint.Follow(resp.Request.URL, resp.Header.Get("Location"))
	if err != nil {
		return nil, s.fail(c.op, c.digest, err)
	}
	return u, nil
}

// withDigest adds the digest parameter that ends an upload, leaving the rest of
// the query as it came: it may be signed.
func withDigest(u *url.URL, d digest.Digest) *url.URL {
	closing := *u
	if closing.RawQuery != "" {
		closing.RawQuery += "&"
	}
	closing.RawQuery += "digest=" + url.QueryEscape(d.String())
	return &closing
}

// exists asks whether the registry has a blob.
func (s *session) exists(ctx context.Context, d digest.Digest) (there bool, err error) {
	err = s.client.run(ctx, "look for "+s.subject(d.String()), func() error {
		there, err = s.existsOnce(ctx, d)
		return err
	})
	return there, err
}

// existsOnce is exists without a second attempt.
func (s *session) existsOnce(ctx context.Context, d digest.Digest) (there bool, err error) {
	c := &call{
		op:     opPushBlob,
		digest: d.String(),
		accept: blobLooked(),
		Call: wire.Call{
			Method: http.MethodHead,
			URL:    s.url("blobs/" + d.String()),
		},
	}
	err = s.perform(ctx, c, func(resp *http.Response) error {
		there = resp.StatusCode == http.StatusOK
		return nil
	})
	return there, err
}

// checkDigest compares what the registry says it has stored, if it says so.
func (s *session) checkDigest(op string, want digest.Digest, resp *http.Response) error {
	said, err := digest.Parse(resp.Header.Get("Docker-Content-Digest"))
	if err != nil || said == want || said.Algorithm() != want.Algorithm() {
		return nil //nolint:nilerr // the header is optional
	}
	return s.fail(op, want.String(), oci.Spoiled("the registry stored it as %s", said))
}
