package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/registry/oci"

	"github.com/bobbuild/bob/registry/transfer"
)

// outage is a network that fails from its n-th request on, for a time.
type outage struct {
	clock *patiencetest.Clock
	n     int64
	takes time.Duration
	err   error // of each request; nil is an answer with the status 503

	requests atomic.Int64
	begin    atomic.Int64 // nanoseconds of the clock; 0: not begun
}

func (o *outage) RoundTrip(r *http.Request) (*http.Response, error) {
	now := o.clock.Now()
	if o.requests.Add(1) == o.n {
		o.begin.Store(now.UnixNano())
	}
	if begin := o.begin.Load(); begin > 0 && now.Sub(time.Unix(0, begin)) < o.takes {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		if o.err != nil {
			return nil, o.err
		}
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestOutages has each request of a push and a pull meet the beginning of an outage of
// any kind: of 30 s, which is survived, or of an hour, which is given up after a minute.
func TestOutages(t *testing.T) {
	t.Parallel()
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for name, failure := range map[string]error{
		"refused":     dial(syscall.ECONNREFUSED),
		"reset":       dial(syscall.ECONNRESET),
		"no host":     dial(syscall.EHOSTUNREACH),
		"no network":  dial(syscall.ENETUNREACH),
		"no resolver": dial(&net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}),
		"hung up":     io.EOF,
		"503":         nil,
	} {
		for _, takes := range []time.Duration{30 * time.Second, time.Hour} {
			t.Run(fmt.Sprint(name, " ", takes), func(t *testing.T) {
				t.Parallel()
				host := serveEmbedded(t)
				for n := int64(1); ; n++ {
					clock := new(patiencetest.Clock)
					o := &outage{clock: clock, n: n, takes: takes, err: failure}
					c := newClient(t, func(options *registry.Options) {
						options.Transport, options.Notice, options.Patience = o, nil, patience.Policy{Clock: clock}
					})
					f := newFixture(t, amd64, 3000, 2000)
					ref := fmt.Sprintf("%s/n%d:1", host, n)
					err := f.pushAsBuild(t.Context(), c, ref)
					if err == nil {
						_, err = c.Resolve(t.Context(), ref, amd64)
					}
					passed := clock.Passed()
					switch {
					case o.begin.Load() == 0:
						return // there are fewer requests
					case takes == time.Hour:
						checkError(t, err, host, nil, "tried ")
						// A stream that broke is sent again as a blob, which has a minute of its own.
						if passed > 3*time.Minute {
							t.Errorf("request %d: given up after %s", n, passed)
						}
					case err != nil:
						t.Errorf("request %d: %v", n, err)
					default:
						f.check(t.Context(), t, c, ref)
					}
				}
			})
		}
	}
}

// fault is as newFaulty takes it.
type fault = func(http.ResponseWriter, *http.Request) bool

// readAgain reads a blob as [oci.Image.Blob] says: again as long as the error
// says so.
func readAgain(ctx context.Context, im *oci.Image, d ocispec.Descriptor) (body []byte, times int, err error) {
	for times = 1; ; times++ {
		body, err = readBlob(ctx, im, d)
		var e *registry.Error
		if !errors.As(err, &e) || !e.Again() {
			return body, times, err
		}
	}
}

// TestDamagedPulls checks that what arrives damaged is asked for again, a few times.
func TestDamagedPulls(t *testing.T) {
	t.Parallel()
	f := newFixture(t, amd64, 300_000)
	layer := "/blobs/" + f.descs[0].Digest.String()
	lie := strings.Repeat("x", 300_000)
	for name, damage := range map[string]func(n int32) fault{
		"layer":            func(n int32) fault { return on("GET", layer, times(n, body("", lie))) },
		"layer, too long":  func(n int32) fault { return on("GET", layer, times(n, body("", lie+"y"))) },
		"layer, too short": func(n int32) fault { return on("GET", layer, times(n, body("", "short"))) },
		"layer, too long, unannounced": func(n int32) fault {
			return on("GET", layer, times(n, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, lie+"y")
			}))
		},
		"config": func(n int32) fault {
			return on("GET", "/blobs/"+descriptor("", f.config).Digest.String(), times(n, body("", strings.Repeat("z", len(f.config)))))
		},
		"manifest": func(n int32) fault {
			return on("GET", "/manifests/", times(n, body(ocispec.MediaTypeImageManifest, "{}")))
		},
	} {
		for _, n := range []int32{1, 2, 3} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				host := newFaulty(t, f, damage(n))
				c := newClient(t, nil)
				im, err := c.Resolve(t.Context(), host+"/app@"+descriptor("", f.manifest).Digest.String(), amd64)
				var got []byte
				if err == nil {
					got, _, err = readAgain(t.Context(), im, f.descs[0].Descriptor)
				}
				if n == 3 {
					checkError(t, err, host, oci.ErrCorrupt, "tried 3 times")
					return
				}
				if err != nil || string(got) != string(f.layers[0]) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
			})
		}
	}
	t.Run("without patience", func(t *testing.T) {
		t.Parallel()
		host := newFaulty(t, f, on("GET", layer, always(body("", lie))))
		im, err := newClient(t, func(o *registry.Options) { o.Patience.Limit = -1 }).Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		if _, times, err := readAgain(t.Context(), im, f.descs[0].Descriptor); times != 1 || !errors.Is(err, oci.ErrCorrupt) {
			t.Errorf("read %d times: %v", times, err)
		}
	})
	t.Run("mirror", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		mirror := newFaulty(t, f, on("GET", layer, func(w http.ResponseWriter, r *http.Request) bool {
			asked.Add(1)
			body("", lie)(w, r)
			return true
		}))
		host := newFaulty(t, f, harmless)
		conf, err := readConf(t, nil, fmt.Sprintf("[[registry]]\nlocation=%q\n[[registry.mirror]]\nlocation=%q\n", host, mirror))
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, func(o *registry.Options) { o.Conf = conf })
		im, err := c.Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		got, times, err := readAgain(t.Context(), im, f.descs[0].Descriptor)
		if err != nil || string(got) != string(f.layers[0]) || times != 2 || asked.Load() != 1 {
			t.Errorf("%d bytes, read %d times, %d times at the mirror: %v", len(got), times, asked.Load(), err)
		}
	})
}

// TestDamagedPushes checks that what a registry finds damaged is sent again, a few
// times, and that a source that delivers damaged bytes is read again.
func TestDamagedPushes(t *testing.T) {
	t.Parallel()
	invalid := say(400, "DIGEST_INVALID")
	for _, path := range []string{"/blobs/uploads/", "/manifests/"} {
		for _, n := range []int32{1, 2, 3} {
			t.Run(fmt.Sprint(path, n), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, amd64, 3000)
				host := newFaulty(t, nil, on("PUT", path, times(n, invalid)))
				err := pushBlobs(t, newClient(t, nil), f, host+"/app:1")
				if n == 3 {
					checkError(t, err, host, nil, "DIGEST_INVALID", "tried 3 times")
				} else if err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("copy", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, amd64, 9<<20)
		lie := append([]byte(nil), f.layers[0]...)
		lie[len(lie)-1] ^= 1
		from := newFaulty(t, f, on("GET", "/blobs/"+f.descs[0].Digest.String(), times(2, body("", string(lie)))))
		to := serveEmbedded(t)
		if _, err := transfer.Copy(t.Context(), newClient(t, nil), from+"/app:1", to+"/app:1", transfer.Options{}); err != nil {
			t.Fatal(err)
		}
		f.checkStored(t, to, "app", "1")
	})
}
