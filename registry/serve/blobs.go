package serve

import (
	"errors"
	"io/fs"
	"net/http"

	"github.com/opencontainers/go-digest"
)

// serveBlob answers distribution-spec's end-2 and end-10.
func (s *server) serveBlob(w http.ResponseWriter, r *http.Request, repo, target string) {
	if !allow(w, r, http.MethodGet, http.MethodHead, http.MethodDelete) {
		return
	}
	d, err := parseDigest(target)
	if err != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	if r.Method == http.MethodDelete {
		err = s.blobs.remove(repo, d)
	} else {
		err = s.sendBlob(w, r, repo, d)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob in "+repo+": "+d.String())
	case err != nil:
		internalError(w, err)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusAccepted)
	}
}

// sendBlob answers with a blob. If it returns an error, it hasn't answered.
func (s *server) sendBlob(w http.ResponseWriter, r *http.Request, repo string, d digest.Digest) error {
	f, err := s.blobs.open(repo, d)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	sendContent(w, r, "application/octet-stream", d, f)
	return nil
}
