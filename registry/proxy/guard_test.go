package proxy_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry/proxy"
)

// A tunnel is an HTTP proxy. It knows one registry outside, to which all that it is
// asked for by a name that ends in .example goes, and any address.
type tunnel struct {
	outside string // host

	mu    sync.Mutex
	asked []string
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Host)
	p.mu.Unlock()
	if r.Method == http.MethodConnect {
		w.WriteHeader(http.StatusForbidden) // https; plain HTTP is tried then
		return
	}
	to := r.Host
	if strings.HasSuffix(to, ".example") {
		to = p.outside
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Host = "", to
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// TestGuard asks for what only this machine should reach, without an HTTP proxy and
// behind one on this machine, before and after that one was used.
func TestGuard(t *testing.T) {
	t.Parallel()
	for _, through := range []bool{false, true} {
		t.Run(map[bool]string{false: "direct", true: "through an HTTP proxy"}[through], func(t *testing.T) {
			t.Parallel()
			internal := &spy{inner: say(200)}
			_, port, err := net.SplitHostPort(serve(t, internal))
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, proxy.Options{Target: "registry.example/app:1", Insecure: true})
			between := &tunnel{outside: serve(t, say(200))}
			if through {
				s.proxy.Through(serve(t, between))
			}
			hosts := []string{
				"127.0.0.1", "127.8.9.10", "localhost", "x.localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "[::127.0.0.1]",
				"127.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
			}
			hosts = append(hosts, ownHosts(t)...)
			for round := range 2 {
				for _, host := range hosts {
					before := len(s.log.String())
					s.want(502, http.MethodGet, "/v2/app/manifests/1?ns="+host+":"+port, nil)
					if said := s.log.String()[before:]; !strings.Contains(said, "only hosts that the credentials name") && !strings.Contains(said, "no such host") {
						t.Errorf("%s: not refused: %s", host, said)
					}
				}
				if round == 0 && through {
					s.want(200, http.MethodGet, "/v2/app/manifests/1?ns=mirror.example", nil)
				}
			}
			if got := internal.lines(); len(got) > 0 {
				t.Errorf("the proxy has reached %q", got)
			}
			for _, asked := range between.asked {
				if strings.HasSuffix(asked, ":"+port) {
					t.Errorf("the HTTP proxy was asked for %s", asked)
				}
			}
			if through && !slices.Contains(between.asked, "mirror.example") {
				t.Errorf("the HTTP proxy wasn't used: %q", between.asked)
			}
		})
	}
}

// ownHosts returns this machine's addresses as a request names them.
func ownHosts(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for _, a := range addrs {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.IsLoopback() {
			continue
		}
		host := network.IP.String()
		if network.IP.To4() == nil {
			host = "[" + host + "]"
		}
		hosts = append(hosts, host)
	}
	return hosts
}

// TestFirstError checks that of two wrong references the same one is told each time.
func TestFirstError(t *testing.T) {
	t.Parallel()
	for range 50 {
		if _, err := proxy.New(proxy.Options{Base: "UPPER:case", Target: "http://x/y"}); err == nil || !strings.HasPrefix(err.Error(), "base reference") {
			t.Fatalf("the error is %v, want that of base", err)
		}
	}
}
