package serve

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/containers/storage/pkg/regexp"
	"github.com/opencontainers/go-digest"
)

// serveUpload is everything below blobs/uploads/.
func (s *server) serveUpload(w http.ResponseWriter, r *http.Request, repo, id string) {
	if id == "" {
		if allow(w, r, http.MethodPost) {
			s.beginUpload(w, r, repo)
		}
		return
	}
	if !allow(w, r, http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete) {
		return
	}
	u := s.uploads.find(repo, id)
	if u == nil {
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
		u.answer(w, http.StatusNoContent)
	case http.MethodPatch:
		if s.append(w, r, u) {
			u.answer(w, http.StatusAccepted)
		}
	case http.MethodPut:
		d, err := parseDigest(r.URL.Query().Get("digest"))
		if err != nil {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
			return
		}
		if s.append(w, r, u) {
			s.finishUpload(w, u, d)
		}
	case http.MethodDelete:
		s.uploads.drop(u)
		w.WriteHeader(http.StatusNoContent)
	}
}

// beginUpload also mounts, and takes whole blobs (distribution-spec, end-4a, end-4b
// and end-11).
func (s *server) beginUpload(w http.ResponseWriter, r *http.Request, repo string) {
	query := r.URL.Query()
	mount, err := digestOf(query, "mount")
	whole, err2 := digestOf(query, "digest")
	if err := cmp.Or(err, err2); err != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	if mount != "" {
		err := s.blobs.mount(query.Get("from"), repo, mount)
		if err == nil {
			created(w, repo, mount)
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			internalError(w, err)
			return
		}
	}
	u, err := s.uploads.begin(repo)
	if err != nil {
		internalError(w, err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if whole == "" {
		u.answer(w, http.StatusAccepted)
		return
	}
	if s.append(w, r, u) {
		s.finishUpload(w, u, whole)
	}
	if !u.gone {
		s.uploads.drop(u) // the client doesn't know its ID
	}
}

// digestOf returns a parameter, "" if it isn't there.
func digestOf(query url.Values, parameter string) (digest.Digest, error) {
	if !query.Has(parameter) {
		return "", nil
	}
	return parseDigest(query.Get(parameter))
}

// answer says where the upload goes on and how much of it is there.
func (u *upload) answer(w http.ResponseWriter, status int) {
	w.Header().Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+u.id)
	w.Header().Set("Docker-Upload-UUID", u.id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.WriteHeader(status)
}

func created(w http.ResponseWriter, repo string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

// contentRange is the range of a chunk (distribution-spec, section "Pushing a blob in
// chunks"), and the one of RFC 9110, which clients send too.
var contentRange = regexp.Delayed(`^(?:bytes )?([0-9]+)-([0-9]+)(?:/(?:[0-9]+|\*))?$`)

// goesOn reports whether a chunk begins where the upload ends and is as long as
// it says.
func (u *upload) goesOn(r *http.Request) bool {
	text := r.Header.Get("Content-Range")
	if text == "" {
		return true
	}
	match := contentRange.FindStringSubmatch(text)
	if match == nil {
		return false
	}
	first, err := strconv.ParseInt(match[1], 10, 64)
	last, err2 := strconv.ParseInt(match[2], 10, 64)
	return err == nil && err2 == nil && first == u.size &&
		(r.ContentLength < 0 || r.ContentLength == last-first+1)
}

// append adds the request's body; it answers itself when it can't.
func (s *server) append(w http.ResponseWriter, r *http.Request, u *upload) bool {
	if !u.goesOn(r) {
		u.answer(w, http.StatusRequestedRangeNotSatisfiable)
		return false
	}
	f, err := s.uploads.root.OpenFile(u.file(), os.O_WRONLY, 0o644)
	if err != nil {
		internalError(w, err)
		return false
	}
	in := &bodyReader{inner: io.TeeReader(r.Body, u.hasher.Hash())}
	n, err := copyAt(f, u.size, in)
	u.size += n
	if err = errors.Join(err, f.Close()); err != nil {
		if in.err == nil { // the file lacks bytes that the hash has
			s.uploads.drop(u)
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
func (s *server) finishUpload(w http.ResponseWriter, u *upload, d digest.Digest) {
	defer s.uploads.drop(u)
	got, err := s.uploads.sum(u, d.Algorithm())
	if err != nil {
		internalError(w, err)
		return
	}
	if got != d {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "the bytes have the digest "+got.String())
		return
	}
	if err := s.blobs.add(u.file(), u.repo, d); err != nil {
		internalError(w, err)
		return
	}
	created(w, u.repo, d)
}
