package host

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bobbuild/bob/registry/patience"
)

// Ways returns how a host (name[:port]) may be reached, the best way first. A loopback host
// is reached as if it were insecure, as with docker: with any certificate, and by plain
// HTTP.
func Ways(host string, insecure bool) []Address {
	lax := insecure || Loopback(host)
	ways := []Address{{Scheme: "https", Host: host, Lax: lax}}
	if lax {
		ways = append(ways, Address{Scheme: "http", Host: host, Lax: true})
	}
	return ways
}

// loopbackTimeout is how long a host on this machine may take to answer to https if there
// is another way: some that speak plain HTTP wait for the end of what they take for a
// request.
const loopbackTimeout = 10 * time.Second

// First asks a host by each of the ways until it answers. ask says whether an error is an
// answer of the host's. The error is the first way's, unless that says that the host speaks
// plain HTTP.
//
// go-containerregistry's transport.Ping isn't used: it takes plain HTTP from every private
// address without being asked, but not from "localhost" without a port.
func First(ctx context.Context, ways []Address, ask func(context.Context, Address) (answered bool, err error)) error {
	var first error
	for _, at := range ways {
		asking, cancel := ctx, func() {}
		if len(ways) > 1 && at.Scheme == "https" && Loopback(at.Host) {
			asking, cancel = context.WithTimeoutCause(ctx, loopbackTimeout, &patience.StallError{Request: "GET to " + at.Host, After: loopbackTimeout})
		}
		answered, err := ask(asking, at)
		cancel()
		if err == nil || ctx.Err() != nil || answered && first == nil {
			return err
		}
		if first == nil || errors.Is(first, http.ErrSchemeMismatch) {
			first = err
		}
	}
	return first
}
