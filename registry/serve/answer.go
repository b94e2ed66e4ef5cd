package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// allow refuses a request of any other method than these.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "not a method of this endpoint: "+r.Method)
	return false
}

// sendJSON answers 200 with a document.
func sendJSON(w http.ResponseWriter, mediaType string, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		internalError(w, err)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	_, _ = w.Write(body) // the client may be gone
}

// sendContent answers with a blob or a manifest, or with a part of it (RFC 9110,
// section 14).
func sendContent(w http.ResponseWriter, r *http.Request, mediaType string, d digest.Digest, content io.ReadSeeker) {
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range") // several ranges may be ignored (section 14.2), and nobody needs them
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Etag", `"`+d.String()+`"`)
	http.ServeContent(w, r, "", time.Time{}, content)
}

// refuse answers with an error of the distribution-spec, section "Error Codes".
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}}) // the client may be gone
}

// internalError says what went wrong here and keeps to itself in which file.
func internalError(w http.ResponseWriter, err error) {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = fmt.Errorf("%s: %w", path.Op, path.Err)
	} else if link := (*os.LinkError)(nil); errors.As(err, &link) {
		err = fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
}
