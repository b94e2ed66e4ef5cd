package serve_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestDeleteBlob deletes a blob that a second repository has, however it came there.
func TestDeleteBlob(t *testing.T) {
	t.Parallel()
	ways := map[string]func(c client, d digest.Digest, content string){
		"mounted":          func(c client, d digest.Digest, _ string) { c.mount(201, d, "b", "&from=a") },
		"mounted from any": func(c client, d digest.Digest, _ string) { c.mount(201, d, "b", "") },
		"uploaded":         func(c client, _ digest.Digest, content string) { c.push("b", content) },
		"mounted twice": func(c client, d digest.Digest, _ string) {
			c.mount(201, d, "c/d", "")
			c.mount(201, d, "b", "&from=c/d")
			c.want(202, "DELETE", blobPath("c/d", d), "")
		},
		"mounted from itself": func(c client, d digest.Digest, content string) { c.push("b", content); c.mount(201, d, "b", "&from=b") },
	}
	for name, share := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := open(t, dir)
			d := c.push("a", "shared")
			c.want(404, "GET", blobPath("b", d), "")
			c.mount(202, d, "b", "&from=other")
			share(c, d, "shared")
			c.want(202, "DELETE", blobPath("a", d), "")
			c.want(404, "GET", blobPath("a", d), "")
			c.want(404, "DELETE", blobPath("a", d), "")
			if got := c.want(200, "GET", blobPath("b", d), ""); got.body != "shared" {
				t.Errorf("the other repository's blob is %q", got.body)
			}
			c = open(t, dir)
			c.want(404, "GET", blobPath("a", d), "")
			c.want(200, "GET", blobPath("b", d), "")
			c.want(202, "DELETE", blobPath("b", d), "")
			c.mount(202, d, "a", "")
			for _, sub := range []string{"blobs/sha256", "links"} {
				if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) > 0 {
					t.Errorf("left in %s: %v, %v", sub, left, err)
				}
			}
			c.push("a", "shared")
			c.want(200, "GET", blobPath("a", d), "")
		})
	}
}

func blobPath(repo string, d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }

// mount mounts a blob and wants a status: 201 for done, 202 for an upload instead.
func (c client) mount(status int, d digest.Digest, repo, from string) {
	c.t.Helper()
	c.want(status, "POST", "/v2/"+repo+"/blobs/uploads/?mount="+d.String()+from, "")
}

// TestConcurrentDelete has repositories push, mount and delete one blob side by
// side. None loses what is its own.
func TestConcurrentDelete(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	d := c.push("keeper", "shared")
	var done sync.WaitGroup
	for i := range 4 {
		done.Go(func() {
			repo := fmt.Sprintf("r%d", i)
			for range 10 {
				if i%2 == 0 {
					c.push(repo, "shared")
				} else {
					c.mount(201, d, repo, "")
				}
				c.want(200, "GET", blobPath(repo, d), "")
				c.want(202, "DELETE", blobPath(repo, d), "")
				c.want(200, "GET", blobPath("keeper", d), "")
			}
		})
	}
	done.Wait()
}

// TestRanges asks for parts of a blob as RFC 9110 has them.
func TestRanges(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	path := blobPath("a", c.push("a", "0123456789"))
	for _, tt := range []struct {
		asked        string
		status       int
		contentRange string
		body         string
	}{
		{"", 200, "", "0123456789"},
		{"bytes=0-", 206, "bytes 0-9/10", "0123456789"},
		{"bytes=3-", 206, "bytes 3-9/10", "3456789"},
		{"bytes=-3", 206, "bytes 7-9/10", "789"},
		{"bytes=-100", 206, "bytes 0-9/10", "0123456789"},
		{"bytes=2-4", 206, "bytes 2-4/10", "234"},
		{"bytes=9-9", 206, "bytes 9-9/10", "9"},
		{"bytes=8-100", 206, "bytes 8-9/10", "89"},
		{"bytes=10-", 416, "bytes */10", ""},
		{"bytes=100-200", 416, "bytes */10", ""},
		{"bytes=0-1,3-4", 200, "", "0123456789"},
		{"bytes=" + strings.Repeat("0-1,", 10000), 200, "", "0123456789"},
	} {
		a := c.want(tt.status, "GET", path, "", "Range: "+tt.asked)
		if got := a.header.Get("Content-Range"); got != tt.contentRange {
			t.Errorf("%.50s: Content-Range %q, want %q", tt.asked, got, tt.contentRange)
		}
		if tt.status != 416 && a.body != tt.body {
			t.Errorf("%.50s: %q, want %q", tt.asked, a.body, tt.body)
		}
	}
	head := c.want(200, "HEAD", path, "")
	if head.header.Get("Content-Length") != "10" || head.header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: %v", head.header)
	}
	c.want(304, "GET", path, "", "If-None-Match: "+head.header.Get("Etag"))
}

// TestUploadRanges sends chunks that go on where the upload is, and others.
func TestUploadRanges(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	at := c.want(202, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	c.want(202, "PATCH", at, "01234", "Content-Range: 0-4")
	for _, wrong := range []string{"0-4", "4-8", "6-10", "5-8", "5-10", "5", "-5", "5-", "a-b", "5-99999999999999999999"} {
		a := c.want(416, "PATCH", at, "56789", "Content-Range: "+wrong)
		if a.header.Get("Range") != "0-4" || a.header.Get("Location") != at {
			t.Errorf("%s: %v", wrong, a.header)
		}
	}
	c.want(416, "PUT", at+"?digest="+digest.FromString("0123456789").String(), "56789", "Content-Range: 0-4")
	if a := c.want(204, "GET", at, ""); a.header.Get("Range") != "0-4" {
		t.Errorf("status: %v", a.header)
	}
	c.want(202, "PATCH", at, "56", "Content-Range: bytes 5-6/*")
	c.want(202, "PATCH", at, "7")
	// A digest that can't be read ends nothing.
	c.want(400, "PUT", at, "")
	c.want(400, "PUT", at+"?digest=sha384:00", "")
	d := digest.SHA512.FromString("0123456789")
	c.want(201, "PUT", at+"?digest="+d.String(), "89", "Content-Range: 8-9")
	if a := c.want(200, "GET", blobPath("a", d), ""); a.body != "0123456789" || a.header.Get("Docker-Content-Digest") != d.String() {
		t.Errorf("the blob is %+v", a)
	}
	c.want(404, "GET", at, "")
	gone := c.want(202, "POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
	c.want(404, "GET", strings.Replace(gone, "/a/", "/b/", 1), "")
	c.want(204, "DELETE", gone, "")
	c.want(404, "PATCH", gone, "x")
}

// TestFailureHere has the disk fail: the answer says how and tells no path.
func TestFailureHere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	for _, sub := range []string{"blobs/sha256", "uploads"} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			t.Fatal(err)
		}
		a := c.want(500, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromString("x").String(), "x")
		if !strings.Contains(a.body, "no such file or directory") || strings.Contains(a.body, dir) || strings.Contains(a.body, sub) {
			t.Errorf("%s: %s", sub, a.body)
		}
	}
}
