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
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/bobbuild/bob/registry/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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
				host := registrytest.ServeEmbedded(t)
				for n := int64(1); ; n++ {
					clock := new(patiencetest.Clock)
					o := &outage{clock: clock, n: n, takes: takes, err: failure}
					c := registrytest.NewClient(t, func(options *registry.Options) {
						options.Transport, options.Notice, options.Patience = o, nil, patience.Policy{Clock: clock}
					})
					f := registrytest.NewFixture(t, registrytest.AMD64, 3000, 2000)
					ref := fmt.Sprintf("%s/n%d:1", host, n)
					err := pushAsBuild(t.Context(), f, c, ref)
					if err == nil {
						_, err = c.Resolve(t.Context(), ref, registrytest.AMD64)
					}
					passed := clock.Passed()
					switch {
					case o.begin.Load() == 0:
						return // there are fewer requests
					case takes == time.Hour:
						registrytest.CheckError(t, err, host, nil, "tried ")
						// A stream that broke is sent again as a blob, which has a minute of its own.
						if passed > 3*time.Minute {
							t.Errorf("request %d: given up after %s", n, passed)
						}
					case err != nil:
						t.Errorf("request %d: %v", n, err)
					default:
						f.Check(t.Context(), t, c, ref)
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
		body, err = registrytest.ReadBlob(ctx, im, d)
		var e *registry.Error
		if !errors.As(err, &e) || !e.Again() {
			return body, times, err
		}
	}
}

// TestDamagedPulls checks that what arrives damaged is asked for again, a few times.
func TestDamagedPulls(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000)
	layer := "/blobs/" + f.Descs[0].Digest.String()
	lie := strings.Repeat("x", 300_000)
	for name, damage := range map[string]func(n int32) fault{
		"layer": func(n int32) fault {
			return registrytest.On("GET", layer, registrytest.Times(n, registrytest.Body("", lie)))
		},
		"layer, too long": func(n int32) fault {
			return registrytest.On("GET", layer, registrytest.Times(n, registrytest.Body("", lie+"y")))
		},
		"layer, too short": func(n int32) fault {
			return registrytest.On("GET", layer, registrytest.Times(n, registrytest.Body("", "short")))
		},
		"layer, too long, unannounced": func(n int32) fault {
			return registrytest.On("GET", layer, registrytest.Times(n, func(w http.ResponseWriter, _ *http.Request) {
				_ = http.NewResponseController(w).Flush()
				_, _ = io.WriteString(w, lie+"y")
			}))
		},
		"config": func(n int32) fault {
			return registrytest.On("GET", "/blobs/"+registrytest.Descriptor("", f.Config).Digest.String(), registrytest.Times(n, registrytest.Body("", strings.Repeat("z", len(f.Config)))))
		},
		"manifest": func(n int32) fault {
			return registrytest.On("GET", "/manifests/", registrytest.Times(n, registrytest.Body(ocispec.MediaTypeImageManifest, "{}")))
		},
	} {
		for _, n := range []int32{1, 2, 3} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				t.Parallel()
				host := registrytest.NewFaulty(t, f, damage(n))
				c := registrytest.NewClient(t, nil)
				im, err := c.Resolve(t.Context(), host+"/app@"+registrytest.Descriptor("", f.Manifest).Digest.String(), registrytest.AMD64)
				var got []byte
				if err == nil {
					got, _, err = readAgain(t.Context(), im, f.Descs[0].Descriptor)
				}
				if n == 3 {
					registrytest.CheckError(t, err, host, oci.ErrCorrupt, "tried 3 times")
					return
				}
				if err != nil || string(got) != string(f.Layers[0]) {
					t.Errorf("%d bytes: %v", len(got), err)
				}
			})
		}
	}
	t.Run("without patience", func(t *testing.T) {
		t.Parallel()
		host := registrytest.NewFaulty(t, f, registrytest.On("GET", layer, registrytest.Always(registrytest.Body("", lie))))
		im, err := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit = -1 }).Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		if _, times, err := readAgain(t.Context(), im, f.Descs[0].Descriptor); times != 1 || !errors.Is(err, oci.ErrCorrupt) {
			t.Errorf("read %d times: %v", times, err)
		}
	})
	t.Run("mirror", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int32
		mirror := registrytest.NewFaulty(t, f, registrytest.On("GET", layer, func(w http.ResponseWriter, r *http.Request) bool {
			asked.Add(1)
			registrytest.Body("", lie)(w, r)
			return true
		}))
		host := registrytest.NewFaulty(t, f, harmless)
		conf, err := readConf(t, nil, fmt.Sprintf("[[registry]]\nlocation=%q\n[[registry.mirror]]\nlocation=%q\n", host, mirror))
		if err != nil {
			t.Fatal(err)
		}
		c := registrytest.NewClient(t, func(o *registry.Options) { o.Conf = conf })
		im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		got, times, err := readAgain(t.Context(), im, f.Descs[0].Descriptor)
		if err != nil || string(got) != string(f.Layers[0]) || times != 2 || asked.Load() != 1 {
			t.Errorf("%d bytes, read %d times, %d times at the mirror: %v", len(got), times, asked.Load(), err)
		}
	})
}

// TestDamagedPushes checks that what a registry finds damaged is sent again, a few
// times, and that a source that delivers damaged bytes is read again.
func TestDamagedPushes(t *testing.T) {
	t.Parallel()
	invalid := registrytest.Say(400, "DIGEST_INVALID")
	for _, path := range []string{"/blobs/uploads/", "/manifests/"} {
		for _, n := range []int32{1, 2, 3} {
			t.Run(fmt.Sprint(path, n), func(t *testing.T) {
				t.Parallel()
				f := registrytest.NewFixture(t, registrytest.AMD64, 3000)
				host := registrytest.NewFaulty(t, nil, registrytest.On("PUT", path, registrytest.Times(n, invalid)))
				err := pushBlobs(t, registrytest.NewClient(t, nil), f, host+"/app:1")
				if n == 3 {
					registrytest.CheckError(t, err, host, nil, "DIGEST_INVALID", "tried 3 times")
				} else if err != nil {
					t.Error(err)
				}
			})
		}
	}
	t.Run("copy", func(t *testing.T) {
		t.Parallel()
		f := registrytest.NewFixture(t, registrytest.AMD64, 9<<20)
		lie := append([]byte(nil), f.Layers[0]...)
		lie[len(lie)-1] ^= 1
		from := registrytest.NewFaulty(t, f, registrytest.On("GET", "/blobs/"+f.Descs[0].Digest.String(), registrytest.Times(2, registrytest.Body("", string(lie)))))
		to := registrytest.ServeEmbedded(t)
		if _, err := transfer.Copy(t.Context(), registrytest.NewClient(t, nil), from+"/app:1", to+"/app:1", transfer.Options{}); err != nil {
			t.Fatal(err)
		}
		checkStored(t, f, to, "app", "1")
	})
}
