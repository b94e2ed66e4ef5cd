package serve_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestManifestNames gives manifests names, takes some away, and looks again after a
// restart.
func TestManifestNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	kept := c.pushManifest("a/b", "1", "one", "")
	c.pushManifest("a/b", "also", "one", "")
	moved := c.pushManifest("a/b", "1", "two", "")
	gone := c.pushManifest("a/b", "2", "three", "")
	c.pushManifest("a/b", "3", "three", "")
	body := fmt.Sprintf(`{"config":{"digest":%q}}`, c.push("a/b", "one"))
	long := digest.SHA512.FromString(body)
	a := c.want(201, "PUT", "/v2/a/b/manifests/"+long.String()+"?tag=long&tag=longer", body, "Content-Type: "+imageType+"; charset=utf-8")
	if got := a.header["Oci-Tag"]; !slices.Equal(got, []string{"long", "longer"}) || a.header.Get("Docker-Content-Digest") != long.String() {
		t.Errorf("tags by parameter: %v", a.header)
	}
	c.want(202, "DELETE", "/v2/a/b/manifests/longer", "")
	c.want(202, "DELETE", "/v2/a/b/manifests/"+gone.String(), "")
	c.pushManifest("c", "only", "one", "")
	c.want(202, "DELETE", "/v2/c/manifests/"+kept.String(), "")
	for _, emptied := range []int{200, 404} { // before the restart and after
		for reference, want := range map[string]digest.Digest{
			"1": moved, "also": kept, "long": long, kept.String(): kept, moved.String(): moved, long.String(): long,
		} {
			for _, method := range []string{"GET", "HEAD"} {
				a := c.want(200, method, "/v2/a/b/manifests/"+reference, "")
				if a.header.Get("Docker-Content-Digest") != want.String() || a.header.Get("Content-Type") != imageType {
					t.Errorf("%s %s: %v", method, reference, a.header)
				}
				if method == "GET" && want.Algorithm().FromString(a.body) != want {
					t.Errorf("%s: another body: %s", reference, a.body)
				}
			}
		}
		for _, reference := range []string{"2", "3", "longer", gone.String()} {
			c.want(404, "GET", "/v2/a/b/manifests/"+reference, "")
		}
		if a := c.want(200, "GET", "/v2/a/b/tags/list", ""); a.body != `{"name":"a/b","tags":["1","also","long"]}` {
			t.Errorf("tags: %s", a.body)
		}
		c.want(emptied, "GET", "/v2/c/tags/list", "")
		if a := c.want(200, "GET", "/v2/_catalog", ""); a.body != `{"repositories":["a/b"]}` {
			t.Errorf("catalog: %s", a.body)
		}
		c = open(t, dir)
	}
}

// TestLists asks for tags and repositories in parts.
func TestLists(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	for _, tag := range []string{"b", "B", "a10", "A2", "_x", "c"} {
		c.pushManifest("some/repo", tag, "x", "")
	}
	for _, repo := range []string{"z", "a/b", "a-b"} {
		c.pushManifest(repo, "1", "x", "")
	}
	for _, tt := range []struct {
		path, want string
		next       string
	}{
		{"/v2/some/repo/tags/list", "_x a10 A2 B b c", ""},
		{"/v2/some/repo/tags/list?n=2", "_x a10", "/v2/some/repo/tags/list?last=a10&n=2"},
		{"/v2/some/repo/tags/list?n=2&last=a10", "A2 B", "/v2/some/repo/tags/list?last=B&n=2"},
		{"/v2/some/repo/tags/list?n=2&last=B", "b c", ""},
		{"/v2/some/repo/tags/list?n=6", "_x a10 A2 B b c", ""},
		{"/v2/some/repo/tags/list?last=b", "c", ""},
		{"/v2/some/repo/tags/list?last=a2.removed", "B b c", ""},
		{"/v2/some/repo/tags/list?last=c", "", ""},
		{"/v2/some/repo/tags/list?n=0", "", ""},
		{"/v2/_catalog", "a-b a/b some/repo z", ""},
		{"/v2/_catalog?n=2", "a-b a/b", "/v2/_catalog?last=a%2Fb&n=2"},
		{"/v2/_catalog?last=a%2Fb&n=2", "some/repo z", ""},
	} {
		a := c.want(200, "GET", tt.path, "")
		var got struct{ Tags, Repositories []string }
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || strings.Contains(a.body, "null") {
			t.Errorf("%s: %v: %s", tt.path, err, a.body)
		}
		link := ""
		if tt.next != "" {
			link = "<" + tt.next + `>; rel="next"`
		}
		if names := strings.Join(append(got.Tags, got.Repositories...), " "); names != tt.want || a.header.Get("Link") != link {
			t.Errorf("%s: %s, next %s", tt.path, names, a.header.Get("Link"))
		}
	}
}

// TestReferrers pushes manifests with a subject, before it and after.
func TestReferrers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := open(t, dir)
	subject := digest.FromString("not there yet")
	list := func(query string) (ocispec.Index, answer) {
		a := c.want(200, "GET", "/v2/a/referrers/"+subject.String()+query, "")
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.Manifests == nil || index.SchemaVersion != 2 ||
			index.MediaType != indexType || a.header.Get("Content-Type") != indexType {
			t.Fatalf("%v: %+v", err, a)
		}
		return index, a
	}
	if index, _ := list(""); len(index.Manifests) != 0 {
		t.Errorf("a repository that isn't there has %v", index.Manifests)
	}
	about := fmt.Sprintf(`,"subject":{"digest":%q}`, subject)
	want := map[digest.Digest]string{
		c.pushManifest("a", "", "x", about+`,"artifactType":"text/one","annotations":{"k":"v"}`): "text/one",
		c.pushManifest("a", "tagged", "x", about):                                                "",
	}
	body := `{"manifests":[]` + about + `}`
	a := c.want(201, "PUT", "/v2/a/manifests/index", body, "Content-Type: "+indexType)
	if got := a.header.Get("OCI-Subject"); got != subject.String() {
		t.Errorf("OCI-Subject: %q", got)
	}
	want[digest.FromString(body)] = ""
	c.pushManifest("other", "", "x", about)
	check := func() {
		t.Helper()
		index, a := list("")
		if a.header.Get("OCI-Filters-Applied") != "" || len(index.Manifests) != len(want) {
			t.Errorf("%+v", a)
		}
		for _, m := range index.Manifests {
			kind, ok := want[m.Digest]
			if got := c.want(200, "GET", "/v2/a/manifests/"+m.Digest.String(), ""); !ok || m.ArtifactType != kind ||
				m.Size != int64(len(got.body)) || m.MediaType != got.header.Get("Content-Type") || (kind != "") != (m.Annotations["k"] == "v") {
				t.Errorf("%+v", m)
			}
		}
		index, a = list("?artifactType=text/one")
		if a.header.Get("OCI-Filters-Applied") != "artifactType" || len(index.Manifests) != 1 || index.Manifests[0].ArtifactType != "text/one" {
			t.Errorf("%+v", a)
		}
	}
	check()
	c = open(t, dir)
	check()
	c.want(202, "DELETE", "/v2/a/manifests/index", "") // the tag alone
	check()
	c.want(202, "DELETE", "/v2/a/manifests/"+digest.FromString(body).String(), "")
	delete(want, digest.FromString(body))
	check()
	kind := fmt.Sprintf(`{"config":{"digest":%q,"mediaType":"text/config"}%s}`, digest.FromString("x"), about)
	c.want(201, "PUT", "/v2/a/manifests/kind", kind, "Content-Type: "+imageType)
	want[digest.FromString(kind)] = "text/config"
	if index, _ := list("?artifactType=text/config"); len(index.Manifests) != 1 {
		t.Errorf("by the config's type: %v", index.Manifests)
	}
}

// TestReferrersInParts has more annotations than one index may be long.
func TestReferrersInParts(t *testing.T) {
	t.Parallel()
	c := open(t, t.TempDir())
	subject := digest.FromString("x")
	want := make(map[digest.Digest]bool)
	for i := range 2 {
		want[c.pushManifest("a", "", "x", fmt.Sprintf(`,"subject":{"digest":%q},"annotations":{"k":"%s%d"}`, subject, strings.Repeat("v", 2200<<10), i))] = true
	}
	path := "/v2/a/referrers/" + subject.String()
	for range 2 {
		a := c.want(200, "GET", path, "")
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || len(index.Manifests) != 1 {
			t.Fatalf("%v: %d manifests", err, len(index.Manifests))
		}
		delete(want, index.Manifests[0].Digest)
		path, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if len(want) != 0 || path != "" {
		t.Errorf("not listed: %v, next %q", want, path)
	}
}

// TestOldDirectory opens what was written before there were links.
func TestOldDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	manifest := func(repo, target, body string) {
		t.Helper()
		text, err := json.Marshal(map[string]any{"repository": repo, "target": target, "contentType": imageType, "body": []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		write("manifests/"+digest.FromString(repo+"\x00"+target).Encoded()+".json", string(text))
	}
	shared, orphan := digest.FromString("shared"), digest.FromString("orphan")
	write("blobs/sha256/"+shared.Encoded(), "shared")
	write("blobs/sha256/"+orphan.Encoded(), "orphan")
	write("uploads/LEFT", "x")
	write("links.new/sha256-"+orphan.Encoded()+"/x", "") // an upgrade that was killed
	body := fmt.Sprintf(`{"config":{"digest":%q},"layers":[{"digest":%q}]}`, shared, digest.FromString("long gone"))
	d := digest.FromString(body)
	manifest("a", d.String(), body)
	manifest("a", "1", body)
	manifest("b", "1", body) // its digest was deleted
	manifest("c", "odd", `[]`)
	c := open(t, dir)
	for range 2 {
		for _, path := range []string{"/v2/b/manifests/1", "/v2/b/manifests/" + d.String()} {
			if a := c.want(200, "GET", path, ""); a.body != body || a.header.Get("Docker-Content-Digest") != d.String() {
				t.Errorf("%s: %+v", path, a)
			}
		}
		c.want(200, "GET", "/v2/c/manifests/odd", "")
		c.want(200, "GET", blobPath("b", shared), "")
		c.want(404, "GET", blobPath("c", shared), "")
		c.want(404, "GET", blobPath("a", orphan), "")
		c.ask("DELETE", blobPath("a", shared), "")
		c.want(404, "GET", blobPath("a", shared), "")
		c = open(t, dir)
	}
	c.push("a", "orphan")
	c.want(200, "GET", blobPath("a", orphan), "")
}
