package serve

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest is the size in bytes of the largest manifest that is taken.
const maxManifest = 4 << 20

// manifestFile is what the embedded registry keeps of a manifest, once by its
// tag and once by its digest. The file's name is a hash of repository and
// target: neither can become a path.
type manifestFile struct {
	Repository  string `json:"repository"`
	Target      string `json:"target"` // tag or digest
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
}

func (m *manifestFile) name() string {
	return serveManifests + "/" + digest.FromString(m.Repository+"\x00"+m.Target).Encoded() + ".json"
}

var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// putManifest checks a manifest, stores it, and only then answers.
func (s *server) putManifest(w http.ResponseWriter, r *http.Request, repo, target string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", err.Error())
		return
	}
	contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", "Content-Type: "+err.Error())
		return
	}
	d := digest.FromBytes(body)
	if digest.Digest(target).Validate() == nil && target != d.String() {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "the manifest has the digest "+d.String())
		return
	}
	if target != d.String() && !tagPattern.MatchString(target) {
		refuse(w, http.StatusBadRequest, "TAG_INVALID", fmt.Sprintf("not a tag: %q", target))
		return
	}
	if missing, err := s.missing(r.Context(), repo, body); err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	} else if missing != "" {
		refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", "no such blob: "+missing.String())
		return
	}

	s.manifests.Lock()
	defer s.manifests.Unlock()
	m := &manifestFile{Repository: repo, Target: target, ContentType: contentType, Body: body}
	answer := s.offer(r.Context(), m)
	if answer.status == http.StatusCreated {
		byDigest := *m
		byDigest.Target = d.String()
		if err := errors.Join(s.save(&byDigest), s.save(m)); err != nil {
			internalError(w, err)
			return
		}
		answer.header.Set("Location", "/v2/"+repo+"/manifests/"+d.String())
	}
	answer.send(w)
}

// missing returns a blob that a manifest names and that isn't there, "" if all are.
func (s *server) missing(ctx context.Context, repo string, body []byte) (digest.Digest, error) {
	var m struct {
		Config *ocispec.Descriptor  `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return "", err
	}
	named := m.Layers
	if m.Config != nil {
		named = append(named, *m.Config)
	}
	for _, d := range named {
		if len(d.URLs) == 0 && !s.hasBlob(ctx, repo, d.Digest) {
			return d.Digest, nil
		}
	}
	return "", nil
}

// offer puts a manifest into inner's memory.
func (s *server) offer(ctx context.Context, m *manifestFile) *recorder {
	answer := newRecorder()
	req := (&http.Request{
		Method:        http.MethodPut,
		URL:           &url.URL{Path: "/v2/" + m.Repository + "/manifests/" + m.Target},
		Header:        http.Header{"Content-Type": {m.ContentType}},
		Body:          readCloser{bytes.NewReader(m.Body)},
		ContentLength: int64(len(m.Body)),
	}).WithContext(ctx)
	s.inner.ServeHTTP(answer, req)
	return answer
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// save writes the file in a way that survives a crash.
func (s *server) save(m *manifestFile) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	temporary := serveUploads + "/" + rand.Text()
	f, err := s.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = s.root.Rename(temporary, m.name())
	}
	if err != nil {
		_ = s.root.Remove(temporary) // the first error counts
	}
	return err
}

func (s *server) deleteManifest(w http.ResponseWriter, r *http.Request, repo, target string) {
	s.manifests.Lock()
	defer s.manifests.Unlock()
	name := (&manifestFile{Repository: repo, Target: target}).name()
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		internalError(w, err)
		return
	}
	s.inner.ServeHTTP(w, r)
}

// replay gives inner the manifests that are in files. It refuses an index before
// its manifests, so that it takes as many rounds as indexes are nested.
func (s *server) replay() error {
	pending, err := s.load()
	if err != nil {
		return err
	}
	for len(pending) > 0 {
		before := len(pending)
		pending = slices.DeleteFunc(pending, func(m *manifestFile) bool {
			return s.offer(context.Background(), m).status == http.StatusCreated
		})
		if len(pending) == before {
			// What an index names was deleted since; it is of no use.
			return nil
		}
	}
	return nil
}

func (s *server) load() ([]*manifestFile, error) {
	dir, err := s.root.Open(serveManifests)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	loaded := make([]*manifestFile, 0, len(names))
	for _, name := range names {
		body, err := s.root.ReadFile(serveManifests + "/" + name)
		if err != nil {
			return nil, err
		}
		m := new(manifestFile)
		if err := json.Unmarshal(body, m); err != nil {
			return nil, fmt.Errorf("%s/%s is damaged, remove it: %w", serveManifests, name, err)
		}
		loaded = append(loaded, m)
	}
	return loaded, nil
}
