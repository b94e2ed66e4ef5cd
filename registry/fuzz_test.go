package registry_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	fuzzedHost = "registry.example"
	fuzzedPass = "s3cr3t-fuzzed-passw0rd"
)

// kinds are the requests of a push and a pull.
var kinds = []string{"ping", "token", "manifest", "blob", "look", "begin", "part", "end", "put", "status", "give up"}

func kindOf(r *http.Request) string {
	path := r.URL.Path
	switch {
	case r.URL.Host != fuzzedHost:
		return "token"
	case path == "/v2/":
		return "ping"
	case strings.Contains(path, "/manifests/"):
		if r.Method == http.MethodPut {
			return "put"
		}
		return "manifest"
	}
	switch r.Method {
	case "HEAD":
		return "look"
	case "POST":
		return "begin"
	case "PATCH":
		return "part"
	case "PUT":
		return "end"
	case "DELETE":
		return "give up"
	}
	if strings.Contains(path, "/blobs/sha256:") {
		return "blob"
	}
	return "status"
}

// answering is a network in which one kind of request gets a made-up answer, and each
// other that of a registry with one small image.
type answering struct {
	t      *testing.T
	image  *registrytest.Fixture
	kind   string
	status int
	header http.Header
	body   []byte
	realms []string // hosts that the made-up answer names as token servers

	mu    sync.Mutex
	count int
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	var sent []byte
	if r.Body != nil {
		sent, _ = io.ReadAll(r.Body)
	}
	a.mu.Lock()
	a.count++
	count := a.count
	a.mu.Unlock()
	if count > 1000 {
		a.t.Fatal("it asks without end")
	}
	basic := strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") || bytes.Contains(sent, []byte(fuzzedPass))
	if host := r.URL.Host; basic && host != fuzzedHost && host != "token.example" && !slices.Contains(a.realms, host) {
		a.t.Errorf("the login goes to %s", host)
	}
	if r.Header.Get("Authorization") != "" && !basic && r.URL.Host != fuzzedHost {
		a.t.Errorf("a token goes to %s", r.URL.Host)
	}
	status, header, body := a.answer(r)
	resp := &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
	if r.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp, nil
}

func (a *answering) answer(r *http.Request) (int, http.Header, []byte) {
	kind := kindOf(r)
	if kind == a.kind {
		return a.status, a.header.Clone(), a.body
	}
	header := http.Header{}
	switch kind {
	case "ping":
		header.Set("WWW-Authenticate", `Bearer realm="https://token.example/token",service="x"`)
		return 401, header, nil
	case "token":
		return 200, header, []byte(`{"token":"s3cr3t-token","expires_in":300}`)
	case "manifest":
		header.Set("Content-Type", a.image.MediaType)
		return 200, header, a.image.Manifest
	case "blob":
		for _, body := range append(slices.Clone(a.image.Layers), a.image.Config) {
			if strings.HasSuffix(r.URL.Path, digest.FromBytes(body).String()) {
				return 200, header, body
			}
		}
		return 404, header, nil
	case "look":
		return 404, header, nil
	case "begin", "part":
		header.Set("Location", "/v2/app/blobs/uploads/u")
		return 202, header, nil
	case "status":
		return 204, header, nil
	}
	return 201, header, nil
}

// FuzzAnswers has a registry or its token server answer one kind of request with
// anything. Whatever comes of it, logins and tokens stay where they belong, errors are
// fit to be shown, nothing is asked without end, and an image is what its digest says.
func FuzzAnswers(f *testing.F) {
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"digest":"sha256:x","size":-1},"layers":[]}`
	index := `{"schemaVersion":2,"manifests":[{"digest":"` + digest.FromString("x").String() + `","size":5,"platform":{"os":"linux","architecture":"amd64"}}]}`
	for _, seed := range []struct {
		kind   string
		status int
		header string
		body   string
	}{
		{"ping", 401, `WWW-Authenticate: Bearer realm="https://thief.example/t",service="\"x",scope="repository:*:*"`, ""},
		{"ping", 401, `WWW-Authenticate: Basic realm="x", Digest a=b`, ""},
		{"ping", 307, "Location: https://thief.example/v2/", ""},
		{"token", 307, "Location: https://thief.example/", ""},
		{"token", 200, "", `{"access_token":"a\nb","expires_in":-1}`},
		{"token", 200, "", `{"token":`},
		{"manifest", 200, "Content-Type: application/json", manifest},
		{"manifest", 200, "Docker-Content-Digest: sha512:1", index},
		{"manifest", 429, "Retry-After: 99999999999", `{"errors":[{"code":"X","message":"` + "\x1b[31m" + `"}]}`},
		{"manifest", 401, `WWW-Authenticate: Bearer realm="http://[::1]/",scope="a b"`, "x"},
		{"blob", 206, "Content-Range: bytes 0-1/2", "xx"},
		{"blob", 302, "Location: //thief.example/x?sig=1", ""},
		{"look", 200, "Docker-Content-Digest: x", ""},
		{"begin", 202, "Location: https://thief.example/u?x=%zz#f", ""},
		{"begin", 202, "Location: ftp://user:pass@x/", ""},
		{"part", 202, "Location: ?x\nRange: 0-99999999999999999999", ""},
		{"status", 204, "Range: bytes=0--1", ""},
		{"end", 201, "Docker-Content-Digest: " + digest.FromString("other").String(), ""},
		{"end", 400, "", `{"errors":[{"code":"DIGEST_INVALID"}]}`},
		{"put", 415, "", `{"errors":[{"code":"UNSUPPORTED","message":"no"}]}`},
		{"give up", 500, "", ""},
	} {
		f.Add(uint8(slices.Index(kinds, seed.kind)), seed.status, seed.header, []byte(seed.body))
	}
	image := fuzzedImage()
	f.Fuzz(func(t *testing.T, kind uint8, status int, header string, body []byte) {
		if status < 200 || status > 599 || strings.Contains(header+string(body), "s3cr3t") {
			return // what a registry never got it can't say
		}
		h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(strings.ReplaceAll(header, "\n", "\r\n") + "\r\n\r\n"))).ReadMIMEHeader()
		if err != nil {
			return
		}
		a := &answering{t: t, image: image, kind: kinds[int(kind)%len(kinds)], status: status, header: http.Header(h), body: body}
		for _, line := range http.Header(h).Values("WWW-Authenticate") {
			for _, c := range auth.ParseChallenges(line) {
				if u, err := url.Parse(c.Parameters["realm"]); err == nil {
					a.realms = append(a.realms, u.Host)
				}
			}
		}
		var told []string
		c := registry.New(registry.Options{
			Transport: a, Keychain: login{"ann", "x"}, Notice: func(s string) { told = append(told, s) },
			Patience: patience.Policy{Limit: 3 * time.Second, Clock: new(patiencetest.Clock)},
		})
		const ref = fuzzedHost + "/app:1"
		im, err := c.Resolve(t.Context(), ref, registrytest.AMD64)
		if err == nil {
			if digest.FromBytes(im.Raw) != im.Digest && im.Digest.Algorithm() == digest.SHA256 {
				t.Errorf("image %s is %s", im.Digest, digest.FromBytes(im.Raw))
			}
			for _, l := range im.Layers {
				var got []byte
				if got, _, err = readAgain(t.Context(), im, l.Descriptor); err == nil && l.Digest.Algorithm().FromBytes(got) != l.Digest {
					t.Errorf("layer %s is another", l.Digest)
				}
			}
		}
		for _, err := range []error{err, pushAsBuild(t.Context(), image, c, ref)} {
			var e *registry.Error
			if err != nil && !errors.As(err, &e) {
				t.Errorf("%#v is not an *Error", err)
			}
			if err != nil {
				told = append(told, err.Error())
			}
		}
		for _, text := range told {
			if strings.Contains(text, fuzzedPass) || strings.Contains(text, "s3cr3t-token") {
				t.Errorf("it tells a secret: %q", text)
			}
			if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("it is not fit for a terminal: %q", text)
			}
		}
	})
}

// fuzzedImage is always the same, unlike that of newFixture.
func fuzzedImage() *registrytest.Fixture {
	layer := []byte("layer")
	f := &registrytest.Fixture{MediaType: ocispec.MediaTypeImageManifest, Layers: [][]byte{layer}}
	f.Descs = []oci.Layer{{Descriptor: registrytest.Descriptor(ocispec.MediaTypeImageLayer, layer), DiffID: digest.FromBytes(layer)}}
	f.Config = []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["` + f.Descs[0].DiffID.String() + `"]}}`)
	config := registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config)
	f.Manifest = []byte(`{"schemaVersion":2,"mediaType":"` + f.MediaType + `","config":{"mediaType":"` + config.MediaType + `","digest":"` + config.Digest.String() +
		`","size":` + strconv.FormatInt(config.Size, 10) + `},"layers":[{"mediaType":"` + ocispec.MediaTypeImageLayer + `","digest":"` + f.Descs[0].Digest.String() + `","size":5}]}`)
	return f
}
