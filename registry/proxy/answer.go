package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// A refusal is an answer of the proxy's own: an error of the distribution-spec
// (section "Error Codes").
type refusal struct {
	status     int
	code       string
	message    string // for the client
	retryAfter string // the header, "" = none
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

// refuse answers with err. Of an error that isn't a refusal the client learns
// nothing but that it may try again: addresses are none of its business.
func refuse(w http.ResponseWriter, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = &refusal{status: http.StatusBadGateway, code: "UNKNOWN", message: "the proxy can't get a proper answer from the registry; its log says why"}
	}
	if e.retryAfter != "" {
		w.Header().Set("Retry-After", e.retryAfter)
	}
	refuseWith(w, e.status, []apiError{{e.code, e.message}})
}

type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func refuseWith(w http.ResponseWriter, status int, errs []apiError) {
	body, err := json.Marshal(map[string][]apiError{"errors": errs})
	if err != nil {
		body = []byte(`{"errors":[]}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// codePattern is what the distribution-spec allows as a code.
var codePattern = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

const maxWords = 512

// errorsOf reads the errors in a registry's answer, without what conceal takes out
// and without details, whose form nobody knows.
func errorsOf(body []byte, conceal func(string) string) []apiError {
	var answer struct {
		Errors []apiError `json:"errors"`
	}
	_ = json.Unmarshal(body, &answer) // what isn't JSON has no errors to pass on
	var errs []apiError
	for _, e := range answer.Errors {
		if codePattern.MatchString(e.Code) {
			errs = append(errs, apiError{conceal(e.Code), printable(conceal(e.Message))})
		}
	}
	if len(errs) == 0 {
		errs = []apiError{{"UNKNOWN", "the registry gives no reason"}}
	}
	return errs
}

// printable keeps a registry's text to one line of bounded length.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if runes := []rune(s); len(runes) > maxWords {
		s = string(runes[:maxWords]) + "…"
	}
	return s
}

// A recorder notes what was answered.
type recorder struct {
	http.ResponseWriter
	status int   // 0: nothing yet
	bytes  int64 // of the body
	broken bool  // the body isn't whole
	pace   *pace // nil: any will do
}

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	write := func() (int, error) { return w.ResponseWriter.Write(p) }
	var (
		n   int
		err error
	)
	if w.pace == nil {
		n, err = write()
	} else {
		n, err = w.pace.move(write)
	}
	w.bytes += int64(n)
	return n, err
}
