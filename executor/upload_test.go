package executor_test

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/registry/serve"
)

// countedBody counts what is read of it, and ends with an error after limit bytes.
type countedBody struct {
	io.ReadCloser

	total *atomic.Int64
	limit int64 // 0: none
	read  int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.limit > 0 {
		if b.read == b.limit {
			return 0, io.ErrUnexpectedEOF
		}
		p = p[:min(int64(len(p)), b.limit-b.read)]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	b.total.Add(int64(n))
	return n, err
}

// A layer whose upload breaks while it is being made goes on from there when it is
// whole, and is sent once for all tags of a repository.
func TestBrokenUploadGoesOn(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	handler, err := serve.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var sent, streams atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &countedBody{ReadCloser: r.Body, total: &sent}
		r.Body = body
		if r.Method != http.MethodPatch || streams.Add(1) > 1 {
			handler.ServeHTTP(w, r)
			return
		}
		body.limit = 3 << 20
		handler.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(srv.Close)
	k.host = strings.TrimPrefix(srv.URL, "http://")
	big := make([]byte, 12<<20)
	_, _ = rand.Read(big)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"big": string(big)})
	tags := []string{k.host + "/app:1", k.host + "/app:2", k.host + "/app:3"}
	r := k.mustBuild("FROM scratch\nCOPY big /\n", executor.Options{Context: dir, Tags: tags})
	for _, tag := range tags {
		img, files := k.pull(tag)
		d, err := img.Digest()
		if err != nil || d.String() != r.Manifest.Digest.String() || files["/big"] != string(big) {
			t.Errorf("%s: digest %s, %v; the file has %d bytes", tag, d, err, len(files["/big"]))
		}
	}
	img, _ := k.pull(tags[0])
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := r.Layers[0].Size + int64(len(config)) + int64(len(tags))*r.Manifest.Size
	if got := sent.Load(); got != want || streams.Load() != 2 {
		t.Errorf("%d bytes were sent, in %d streams; the image has %d", got, streams.Load(), want)
	}
}
