package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/bobbuild/bob/registry/internal/words"
)

// A refusal is an answer that the proxy gives itself: an error of the distribution-spec
// (section "Error Codes").
type refusal struct {
	status     int
	code       string
	message    string // for the client
	retryAfter string // the header; may be ""
	cause      error  // for the log; may be nil
}

// Error implements error.
func (e *refusal) Error() string {
	text := e.code + ": " + e.message
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *refusal) Unwrap() error { return e.cause }

// refuse answers with err. If err isn't a refusal, the client only learns that it may
// try again, since the text may hold addresses.
func refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = &refusal{status: http.StatusBadGateway, code: "UNKNOWN", message: "the proxy can't get a proper answer from the registry; its log says why"}
	}
	if e.retryAfter != "" {
		w.Header().Set("Retry-After", e.retryAfter)
	}
	refuseWith(w, e.status, []words.Error{{Code: e.code, Message: e.message}})
}

func refuseWith(w http.ResponseWriter, status int, errs []words.Error) {
	body, err := json.Marshal(map[string][]words.Error{"errors": errs})
	if err != nil {
		body = []byte(`{"errors":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// errorsOf reads the errors in a registry's answer, with secrets removed by conceal.
func errorsOf(body []byte, conceal func(string) string) []words.Error {
	said, _ := words.Errors(body) // what isn't JSON has no errors to pass on
	var errs []words.Error
	for _, e := range said {
		if e.Code != "" {
			errs = append(errs, words.Error{Code: conceal(e.Code), Message: conceal(e.Message)})
		}
	}
	if len(errs) == 0 {
		errs = []words.Error{{Code: "UNKNOWN", Message: "the registry gives no reason"}}
	}
	return errs
}
