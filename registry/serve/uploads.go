package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// server is the embedded registry.
type server struct {
	root  *os.Root
	blobs blobFiles
	inner http.Handler

	manifests sync.Mutex // files and inner's memory change together

	mu      sync.Mutex
	uploads map[string]*fileUpload // by ID
}

// fileUpload is an unfinished upload, a file below uploads/.
type fileUpload struct {
	repo string

	mu     sync.Mutex
	hasher digest.Digester // of the bytes so far
	size   int64
	gone   bool
}

// removeUploads forgets what earlier servers left unfinished: nobody knows their
// IDs any more.
func (s *server) removeUploads() error {
	dir, err := s.root.Open(serveUploads)
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	if err := errors.Join(err, dir.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := s.root.Remove(serveUploads + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// serveUpload is everything below blobs/uploads/.
func (s *server) serveUpload(w http.ResponseWriter, r *http.Request, repo, id string) {
	if r.Method == http.MethodPost {
		if id != "" {
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "an upload is begun at uploads/")
			return
		}
		s.beginUpload(w, r, repo)
		return
	}
	s.mu.Lock()
	u := s.uploads[id]
	s.mu.Unlock()
	if u == nil || u.repo != repo {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "the upload has ended")
		return
	}
	switch r.Method {
	case http.MethodGet:
		u.answer(w, http.StatusNoContent, id)
	case http.MethodPatch:
		if s.append(w, r, u, id) {
			u.answer(w, http.StatusAccepted, id)
		}
	case http.MethodPut:
		if s.append(w, r, u, id) {
			s.finishUpload(w, r, u, id)
		}
	case http.MethodDelete:
		s.dropUpload(u, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "no such method")
	}
}

// beginUpload also mounts, and takes whole blobs.
func (s *server) beginUpload(w http.ResponseWriter, r *http.Request, repo string) {
	query := r.URL.Query()
	if mount := query.Get("mount"); mount != "" && s.hasBlob(r.Context(), repo, digest.Digest(mount)) {
		created(w, repo, digest.Digest(mount))
		return
	}
	id := rand.Text()
	f, err := s.root.OpenFile(serveUploads+"/"+id, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		internalError(w, err)
		return
	}
	u := &fileUpload{repo: repo, hasher: digest.SHA256.Digester()}
	u.mu.Lock()
	defer u.mu.Unlock()
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	if query.Get("digest") == "" {
		u.answer(w, http.StatusAccepted, id)
		return
	}
	if s.append(w, r, u, id) {
		s.finishUpload(w, r, u, id)
	}
}

func (s *server) hasBlob(ctx context.Context, repo string, d digest.Digest) bool {
	h, err := sha256Hash(d)
	if err != nil {
		return false
	}
	_, err = s.blobs.Stat(ctx, repo, h)
	return err == nil
}

// answer says where the upload goes on and how much of it is there.
func (u *fileUpload) answer(w http.ResponseWriter, status int, id string) {
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+id)
	w.Header().Set("Docker-Upload-UUID", id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.WriteHeader(status)
}

func created(w http.ResponseWriter, repo string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

// append adds the request's body; it answers itself when it can't.
func (s *server) append(w http.ResponseWriter, r *http.Request, u *fileUpload, id string) bool {
	if from := r.Header.Get("Content-Range"); from != "" {
		start, _, _ := strings.Cut(strings.TrimPrefix(from, "bytes "), "-")
		if n, err := strconv.ParseInt(start, 10, 64); err != nil || n != u.size {
			u.answer(w, http.StatusRequestedRangeNotSatisfiable, id)
			return false
		}
	}
	f, err := s.root.OpenFile(serveUploads+"/"+id, os.O_WRONLY, 0o644)
	if err != nil {
		internalError(w, err)
		return false
	}
	in := &bodyReader{inner: io.TeeReader(r.Body, u.hasher.Hash())}
	n, err := copyAt(f, u.size, in)
	u.size += n
	if err = errors.Join(err, f.Close()); err != nil {
		if in.err == nil { // the file lacks bytes that the hash has
			s.dropUpload(u, id)
		}
		internalError(w, err)
		return false
	}
	return true
}

// bodyReader remembers why a request's body broke. What came before it stays, and
// the client may go on from there.
type bodyReader struct {
	inner io.Reader
	err   error // nil: it didn't
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.inner.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

func copyAt(f *os.File, offset int64, r io.Reader) (int64, error) {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(f, r)
}

// finishUpload verifies the upload and makes it a blob.
func (s *server) finishUpload(w http.ResponseWriter, r *http.Request, u *fileUpload, id string) {
	d := digest.Digest(r.URL.Query().Get("digest"))
	h, err := sha256Hash(d)
	if err != nil {
		s.dropUpload(u, id)
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	if got := u.hasher.Digest(); got != d {
		s.dropUpload(u, id)
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "the bytes have the digest "+got.String())
		return
	}
	if err := s.root.Rename(serveUploads+"/"+id, serveBlobs+"/"+h.Hex); err != nil {
		internalError(w, err)
		return
	}
	s.dropUpload(u, id)
	created(w, u.repo, d)
}

// dropUpload forgets an upload, whose lock is held.
func (s *server) dropUpload(u *fileUpload, id string) {
	u.gone = true
	s.mu.Lock()
	delete(s.uploads, id)
	s.mu.Unlock()
	_ = s.root.Remove(serveUploads + "/" + id) // it may be a blob by now
}
