package transfer_test

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestCopyEverything(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	from := registrytest.ServeEmbedded(t)
	target, to := newDiary(t)
	b := pushBundle(t, c, from+"/app:1")

	var mu sync.Mutex
	moved := make(map[digest.Digest]int)
	o := transfer.Options{Moving: func(d ocispec.Descriptor) {
		mu.Lock()
		defer mu.Unlock()
		moved[d.Digest]++
	}}
	got, err := transfer.Copy(t.Context(), c, "docker://"+from+"/app:1", to+"/deep/copy:2", o)
	if err != nil {
		t.Fatal(err)
	}
	if want := registrytest.Descriptor(ocispec.MediaTypeImageIndex, b.documents[b.root]); got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType {
		t.Errorf("copied %+v, want %+v", got, want)
	}
	for d := range b.blobs {
		if moved[d] != 1 {
			t.Errorf("blob %s moved %d times", d, moved[d])
		}
	}
	puts := target.take("PUT ")
	b.check(t, to, "deep/copy", "2")

	// What names something comes after it, and the tag last.
	manifests := slices.IndexFunc(puts, func(s string) bool { return strings.Contains(s, "/manifests/") })
	if manifests != len(b.blobs) || len(puts) != len(b.blobs)+len(b.documents) {
		t.Errorf("the order is wrong:\n%s", strings.Join(puts, "\n"))
	}
	if last := puts[len(puts)-1]; last != "PUT /v2/deep/copy/manifests/2" {
		t.Errorf("the last request is %s", last)
	}

	// Again nothing moves.
	target.take()
	if _, err := transfer.Copy(t.Context(), c, from+"/app:1", to+"/deep/copy:3", transfer.Options{
		Moving: func(d ocispec.Descriptor) { t.Errorf("%s moves again", d.Digest) },
	}); err != nil {
		t.Fatal(err)
	}
	b.check(t, to, "deep/copy", "3")
}

func TestCopyPlatform(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	host := registrytest.ServeEmbedded(t)
	b := pushBundle(t, c, host+"/app:1")
	arm := platforms.MustParse("linux/arm64")
	got, err := transfer.Copy(t.Context(), c, host+"/app:1", host+"/arm:1", transfer.Options{Platform: &arm})
	if err != nil {
		t.Fatal(err)
	}
	if got.MediaType != ocispec.MediaTypeImageManifest || b.documents[got.Digest] == nil {
		t.Errorf("copied %+v", got)
	}
	im, err := c.Resolve(t.Context(), host+"/arm:1", arm)
	if err != nil || im.Digest != got.Digest || im.Root != got.Digest {
		t.Errorf("at the target is %+v, %v", im, err)
	}
	windows := platforms.MustParse("windows/amd64")
	// Of an index, and of an image for another platform.
	for _, src := range []string{host + "/app:1", host + "/arm:1"} {
		_, err := transfer.Copy(t.Context(), c, src, host+"/windows:1", transfer.Options{Platform: &windows})
		registrytest.CheckError(t, err, host, oci.ErrNotFound, "no image for platform windows/amd64", "linux/arm64")
	}
}

func TestCopyMounts(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	target, host := newDiary(t)
	// The embedded registry has each blob for all repositories; this one doesn't.
	missing := registrytest.On(http.MethodHead, "/v2/target/blobs/", registrytest.Always(registrytest.Say(http.StatusNotFound, "BLOB_UNKNOWN")))
	inner := target.inner
	target.inner = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !missing(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	b := pushBundle(t, c, host+"/base:1")
	target.take()
	_, err := transfer.Copy(t.Context(), c, host+"/base:1", host+"/target:1", transfer.Options{
		Moving: func(d ocispec.Descriptor) { t.Errorf("%s moves", d.Digest) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if mounts := target.take("POST /v2/target/blobs/uploads/?from=base&mount="); len(mounts) != len(b.blobs) {
		t.Errorf("%d mounts, want %d: %s", len(mounts), len(b.blobs), mounts)
	}
	b.check(t, host, "target", "1")
}

// aliases is a proxy that shows a repository of one registry as "base", one of
// another as "target", and knows nothing else.
type aliases map[string]struct{ host, repository string }

func (a aliases) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	alias, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	target, ok := a[alias]
	if !ok {
		http.NotFound(w, r)
		return
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: target.host})
			p.Out.URL.Path = "/v2/" + target.repository + "/" + rest
		},
		ModifyResponse: func(resp *http.Response) error {
			if l := resp.Header.Get("Location"); l != "" {
				resp.Header.Set("Location", strings.Replace(l, "/v2/"+target.repository+"/", "/v2/"+alias+"/", 1))
			}
			return nil
		},
	}
	proxy.ServeHTTP(w, r)
}

func TestCopyThroughAliases(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	from := registrytest.ServeEmbedded(t)
	target, to := newDiary(t)
	b := pushBundle(t, c, from+"/some/image:1")
	proxy := registrytest.Serve(t, aliases{"base": {from, "some/image"}, "target": {to, "owner/workspace"}})
	if _, err := transfer.Copy(t.Context(), c, proxy+"/base:1", proxy+"/target:1", transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	mounts := target.take("POST /v2/owner/workspace/blobs/uploads/?from=base&mount=")
	if len(mounts) != len(b.blobs) {
		t.Errorf("%d mounts were tried, want %d: %s", len(mounts), len(b.blobs), mounts)
	}
	b.check(t, to, "owner/workspace", "1")
}

func TestCopyToSeveral(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	first, firstHost := newDiary(t)
	second, secondHost := newDiary(t)
	a := registrytest.NewArchive(t)
	dir := t.TempDir()
	if err := archive.WriteOCIDir(t.Context(), dir, a); err != nil {
		t.Fatal(err)
	}
	d, err := transfer.Copy(t.Context(), c, dir, firstHost+"/app:1", transfer.Options{
		Also: []string{firstHost + "/app:2", firstHost + "/other:1", secondHost + "/app:latest"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(a.Images[0].Manifest); d.Digest != want {
		t.Errorf("pushed %s, want %s", d.Digest, want)
	}
	const blobs = 3 // two layers, one of them twice in the image, and the config
	for name, got := range map[string][]string{firstHost: first.take("PUT "), secondHost: second.take("PUT ")} {
		uploads := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.Contains(s, "/blobs/") })
		if len(uploads) != blobs {
			t.Errorf("%s got %d blobs, want %d: %s", name, len(uploads), blobs, got)
		}
	}
	for _, ref := range []string{firstHost + "/app:1", firstHost + "/app:2", firstHost + "/other:1", secondHost + "/app"} {
		if im, err := c.Resolve(t.Context(), ref, registrytest.AMD64); err != nil || im.Digest != d.Digest {
			t.Errorf("%s: %v, %v", ref, im, err)
		}
	}
}

func TestCopyForeignLayers(t *testing.T) {
	t.Parallel()
	var notices []string
	o := transfer.Options{Notice: func(s string) { notices = append(notices, s) }}
	c := registrytest.NewClient(t, nil)
	from := registrytest.ServeEmbedded(t)
	target, to := newDiary(t)
	f := registrytest.NewFixture(t, platforms.MustParse("windows/amd64"), 10, 20)
	f.Push(t.Context(), t, c, from+"/app:1")
	elsewhere := registrytest.Descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("not in any registry"))
	elsewhere.URLs = []string{"https://example.com/layer"}
	// A type of its own decides, not a URL.
	mirrored := f.Descs[1].Descriptor
	mirrored.URLs = []string{"https://example.com/mirror"}
	manifest := registrytest.Encode(t, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config),
		Layers:    []ocispec.Descriptor{elsewhere, mirrored},
	})
	want := registrytest.PushDocument(t, c, from+"/app:1", ocispec.MediaTypeImageManifest, manifest)
	got, err := transfer.Copy(t.Context(), c, from+"/app:1", to+"/app:1", o)
	if err != nil || got.Digest != want {
		t.Fatalf("copied %s, %v", got.Digest, err)
	}
	if puts := target.take("PUT /v2/app/blobs/"); len(puts) != 2 {
		t.Errorf("pushed other blobs than the config and the layer with a mirror: %s", puts)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], elsewhere.Digest.String()) || !strings.Contains(notices[0], "https://example.com/layer") {
		t.Errorf("notices: %q", notices)
	}
	_, err = transfer.Copy(t.Context(), c, from+"/app:1", "docker-archive:"+filepath.Join(t.TempDir(), "x.tar"), transfer.Options{})
	if err == nil || !strings.Contains(err.Error(), elsewhere.Digest.String()) {
		t.Errorf("an archive without its layer: %v", err)
	}
}

func TestCopyRetriesBlobs(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 100, 100_000)
	from := registrytest.NewFaulty(t, f, registrytest.On(http.MethodGet, "/blobs/", registrytest.Times(2, registrytest.Reset)))
	to := registrytest.NewFaulty(t, nil, registrytest.On(http.MethodPut, "/blobs/", registrytest.Times(2, registrytest.Say(http.StatusServiceUnavailable, "UNAVAILABLE"))))
	c := registrytest.NewClient(t, nil)
	if _, err := transfer.Copy(t.Context(), c, from+"/app:1", to+"/app:1", transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	f.Check(t.Context(), t, c, to+"/app:1")
}

func TestCopyFailures(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 100, 100_000)
	layer := f.Descs[1].Digest.String()
	for name, tt := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  string
	}{
		"other bytes":    {registrytest.On(http.MethodGet, layer, registrytest.Always(registrytest.Body("", strings.Repeat("x", 100_000)))), "another digest"},
		"fewer bytes":    {registrytest.On(http.MethodGet, layer, registrytest.Always(registrytest.Body("", "x"))), "1 bytes instead of 100000"},
		"missing blob":   {registrytest.On(http.MethodGet, layer, registrytest.Always(registrytest.Say(http.StatusNotFound, "BLOB_UNKNOWN"))), "no such blob"},
		"huge manifest":  {registrytest.On(http.MethodGet, "/manifests/", registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, `{"layers":[`+strings.Repeat(" ", 5<<20)+`]}`))), "larger than the 4 MiB"},
		"no manifest":    {registrytest.On(http.MethodGet, "/manifests/", registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, `[]`))), "manifest"},
		"bad descriptor": {registrytest.On(http.MethodGet, "/manifests/", registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[{"digest":"sha256:../../etc","size":1}]}`))), "sha256:../../etc"},
		"negative size":  {registrytest.On(http.MethodGet, "/manifests/", registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[{"digest":"`+layer+`","size":-1}]}`))), "-1 bytes"},
		"huge index": {registrytest.On(http.MethodGet, "/manifests/", registrytest.Always(registrytest.Body(ocispec.MediaTypeImageIndex,
			`{"schemaVersion":2,"manifests":[{"digest":"`+layer+`","size":99999999}]}`))), "64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := registrytest.NewFaulty(t, f, tt.fault)
			target, to := newDiary(t)
			c := registrytest.NewClient(t, nil)
			_, err := transfer.Copy(t.Context(), c, from+"/app:1", to+"/app:1", transfer.Options{})
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			for _, want := range []string{tt.want, from + "/app"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q", want)
				}
			}
			if puts := target.take("PUT /v2/app/manifests/"); len(puts) > 0 {
				t.Errorf("manifests were pushed: %s", puts)
			}
			out := filepath.Join(t.TempDir(), "x.tar")
			if _, err := transfer.Copy(t.Context(), c, from+"/app:1", "oci:"+out, transfer.Options{}); err == nil {
				t.Error("an archive was made")
			}
			if left, err := os.ReadDir(filepath.Dir(out)); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

func TestCopyByDigest(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	target, host := newDiary(t)
	f.Push(t.Context(), t, c, host+"/app:1")
	d := digest.FromBytes(f.Manifest)
	if _, err := transfer.Copy(t.Context(), c, host+"/app@"+d.String(), host+"/copy@"+d.String(), transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	f.Check(t.Context(), t, c, host+"/copy@"+d.String())
	target.take()
	_, err := transfer.Copy(t.Context(), c, host+"/app:1", host+"/other@"+digest.FromString("x").String(), transfer.Options{})
	if err == nil || !strings.Contains(err.Error(), d.String()) {
		t.Errorf("copied to a digest of something else: %v", err)
	}
	if posts := target.take("POST ", "PUT "); len(posts) > 0 {
		t.Errorf("something was pushed: %s", posts)
	}
}

func TestCopyLayouts(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	host := registrytest.ServeEmbedded(t)
	b := pushBundle(t, c, host+"/app:1")
	dir := t.TempDir()
	// From place to place, the last one being a registry again.
	at := []string{
		host + "/app:1", "oci:" + dir + "/layout:v1", "oci:" + dir + "/a.tar:v2",
		"oci-archive:" + dir + "/archive:v3", "oci:" + dir + "/layout:v4",
	}
	for i := 1; i < len(at); i++ {
		if d, err := transfer.Copy(t.Context(), c, at[i-1], at[i], transfer.Options{}); err != nil || d.Digest != b.root {
			t.Fatalf("%s: %s, %v", at[i], d.Digest, err)
		}
	}
	for i, src := range append(at[1:], "oci:"+dir+"/layout@"+b.root.String(), dir+"/a.tar", dir+"/layout") {
		to := registrytest.ServeEmbedded(t)
		if d, err := transfer.Copy(t.Context(), c, src, to+"/back:1", transfer.Options{}); err != nil || d.Digest != b.root {
			t.Errorf("%d: %s: %s, %v", i, src, d.Digest, err)
			continue
		}
		b.check(t, to, "back", "1")
	}
	for _, src := range []string{"oci:" + dir + "/layout:v9", "oci:" + dir + "/nowhere", dir + "/nowhere.tar"} {
		if _, err := transfer.Copy(t.Context(), c, src, host+"/not:1", transfer.Options{}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", src, err)
		}
	}
}

func TestCopyRefusesPlaces(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	dir := t.TempDir()
	good := "oci:" + dir + "/x"
	for _, tt := range []struct{ src, dst, want string }{
		{"UPPER", good, "UPPER"},
		{"oci:", good, "path is missing"},
		{"docker-archive::x", good, "path is missing"},
		{"docker-archive:f:UPPER", good, "UPPER"},
		{"oci:d@sha256:12", good, "digest"},
		{good, "oci:d@" + digest.FromString("x").String(), "leave it out"},
		{good, dir + "/file", "docker-archive:"},
		{good, "http://host/x", "without a scheme"},
	} {
		if _, err := transfer.Copy(t.Context(), c, tt.src, tt.dst, transfer.Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s to %s: %v", tt.src, tt.dst, err)
		}
	}
	if _, err := transfer.Copy(t.Context(), c, good, good, transfer.Options{Also: []string{"host/x"}}); err == nil || !strings.Contains(err.Error(), "host/x") {
		t.Errorf("a layout and a registry at once: %v", err)
	}
}

func TestCopyCancelled(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 100, 100)
	ctx, cancel := context.WithCancel(t.Context())
	from := registrytest.NewFaulty(t, f, registrytest.On(http.MethodGet, "/blobs/", registrytest.Always(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		registrytest.Hang(w, r)
	})))
	target, to := newDiary(t)
	if _, err := transfer.Copy(ctx, registrytest.NewClient(t, nil), from+"/app:1", to+"/app:1", transfer.Options{}); err == nil {
		t.Error("no error")
	}
	if puts := target.take("PUT /v2/app/manifests/"); len(puts) > 0 {
		t.Errorf("manifests were pushed: %s", puts)
	}
}
