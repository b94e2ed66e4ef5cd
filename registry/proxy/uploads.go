package proxy

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
)

// pushScope is what a push may do (Docker Registry v2 token scopes).
const pushScope = "pull,push"

// startUpload begins an upload, or mounts a blob from the other alias. A body isn't
// read: a registry that takes no blob by POST answers the same.
func (p *Proxy) startUpload(w *recorder, r *http.Request, repo *repository) error {
	if !p.pushes.mayBegin(repo.alias) {
		return &refusal{status: http.StatusServiceUnavailable, code: "UNAVAILABLE", message: "the proxy is about to end and begins no push any more"}
	}
	query := r.URL.Query()
	blob, err := digest.Parse(query.Get("mount"))
	if from := p.aliases[query.Get("from")]; err == nil && mountable(from, repo) {
		if a := p.mount(r, repo, from, blob); a != nil {
			return p.answerStart(w, a, repo, blob)
		}
	}
	s, err := p.session(r.Context(), repo, pushScope, nil)
	if err != nil {
		return err
	}
	a, err := s.do(r.Context(), s.call(r, "blobs/uploads/"))
	if err != nil {
		return err
	}
	return p.answerStart(w, a, repo, blob)
}

func mountable(from, to *repository) bool {
	return from != nil && from.RegistryStr() == to.RegistryStr() && from.RepositoryStr() != to.RepositoryStr()
}

// mount asks for a blob of another repository; nil if that doesn't work: some token
// servers refuse such a token altogether.
func (p *Proxy) mount(r *http.Request, to, from *repository, blob digest.Digest) *answer {
	s, err := p.session(r.Context(), to, pushScope, from)
	if err != nil {
		return nil
	}
	c := s.call(r, "blobs/uploads/")
	c.url.RawQuery = url.Values{"mount": {blob.String()}, "from": {from.RepositoryStr()}}.Encode()
	a, err := s.do(r.Context(), c)
	if err != nil {
		return nil
	}
	if a.StatusCode != http.StatusCreated && !begun(a.StatusCode) {
		closeBody(a.Body)
		return nil
	}
	return a
}

// begun says whether a registry has begun an upload. The distribution-spec has 202.
func begun(status int) bool {
	return status == http.StatusAccepted || status == http.StatusOK || status == http.StatusNoContent
}

// answerStart tells the client that the blob is mounted, or where to send it.
func (p *Proxy) answerStart(w *recorder, a *answer, repo *repository, blob digest.Digest) error {
	switch {
	case a.StatusCode == http.StatusCreated && blob != "":
		defer closeBody(a.Body)
		p.pushes.begin(repo.alias)
		return created(w, repo, blob)
	case begun(a.StatusCode):
		id := rand.Text()
		if err := p.follow(a, id, repo.alias); err != nil {
			closeBody(a.Body)
			return err
		}
		p.pushes.begin(repo.alias)
		w.Header().Set("Docker-Upload-Uuid", id)
		w.Header().Set("Location", uploadPath(repo.alias, id))
		a.StatusCode = http.StatusAccepted
	case a.StatusCode < 300:
		closeBody(a.Body)
		return fmt.Errorf("the registry begins no upload: status %d", a.StatusCode)
	}
	return a.relay(w)
}

func uploadPath(alias, id string) string { return "/v2/" + alias + "/blobs/" + uploadsPath + id }

func created(w *recorder, repo *repository, blob digest.Digest) error {
	w.Header().Set("Docker-Content-Digest", blob.String())
	w.Header().Set("Location", "/v2/"+repo.alias+"/blobs/"+blob.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// follow notes where an upload goes on.
func (p *Proxy) follow(a *answer, id, alias string) error {
	to, err := a.session.Follow(a.Request.URL, a.Header.Get("Location"))
	if err != nil {
		return err
	}
	p.uploads.put(id, upload{alias, to})
	return nil
}

// continueUpload passes on what belongs to an upload: a part of the blob, the
// rest with the digest, a question how far it is, or that it is given up.
func (p *Proxy) continueUpload(w *recorder, r *http.Request, repo *repository, t *target) error {
	up, ok := p.uploads.get(t.ref)
	if !ok || up.alias != repo.alias {
		return &refusal{status: http.StatusNotFound, code: "BLOB_UPLOAD_UNKNOWN", message: "the proxy knows no such upload; begin a new one"}
	}
	s, err := p.session(r.Context(), repo, pushScope, nil)
	if err != nil {
		return err
	}
	c := s.call(r, "", "Content-Type", "Content-Range")
	to := *up.url
	c.url = &to
	var blob digest.Digest
	if r.Method == http.MethodPut {
		if blob, err = digest.Parse(r.URL.Query().Get("digest")); err != nil {
			return &refusal{status: http.StatusBadRequest, code: "DIGEST_INVALID", message: "the query lacks a valid digest"}
		}
		if to.RawQuery != "" {
			to.RawQuery += "&" // the rest stays as it came: it may be signed
		}
		to.RawQuery += "digest=" + url.QueryEscape(blob.String())
	}
	if r.Method == http.MethodPut || r.Method == http.MethodPatch {
		c.body, c.once, c.size = func() io.Reader { return r.Body }, true, r.ContentLength
	}
	a, err := s.do(r.Context(), c)
	if err != nil {
		return err
	}
	return p.answerUpload(w, a, repo, t.ref, blob)
}

func (p *Proxy) answerUpload(w *recorder, a *answer, repo *repository, id string, blob digest.Digest) error {
	if a.StatusCode < 200 || a.StatusCode >= 300 {
		return a.relay(w)
	}
	switch a.Request.Method {
	case http.MethodPut:
		defer closeBody(a.Body)
		p.uploads.remove(id)
		return created(w, repo, blob)
	case http.MethodDelete:
		p.uploads.remove(id)
	default:
		// Without a Location it goes on where it was.
		if a.Header.Get("Location") != "" {
			if err := p.follow(a, id, repo.alias); err != nil {
				closeBody(a.Body)
				return err
			}
		}
		w.Header().Set("Docker-Upload-Uuid", id)
		w.Header().Set("Location", uploadPath(repo.alias, id))
		if a.Request.Method == http.MethodPatch {
			a.StatusCode = http.StatusAccepted
		}
	}
	return a.relay(w)
}
