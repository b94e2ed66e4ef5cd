// Package words makes text from other machines fit to be shown: one line of bounded
// length, without anything that may be a credential.
package words

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"unicode"

	"github.com/containers/storage/pkg/regexp"
)

var (
	userinfoPattern = regexp.Delayed(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"']*@`)
	queryPattern    = regexp.Delayed(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'?]*)\?[^\s"']*`)
	schemePattern   = regexp.Delayed(`(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}`)
	tokenPattern    = regexp.Delayed(`(?i)("?(?:access_|refresh_|id_)?(?:token|password|secret)"?\s*[:=]\s*"?)[^\s"',}&]+`)
)

// Redact removes from a text what may be a credential: user, password and query of
// URLs, authorisation headers, and fields that are called token, password or secret.
func Redact(s string) string {
	s = userinfoPattern.ReplaceAllString(s, "$1")
	s = queryPattern.ReplaceAllString(s, "$1")
	s = schemePattern.ReplaceAllString(s, "$1 [redacted]")
	return tokenPattern.ReplaceAllString(s, "$1[redacted]")
}

// Conceal removes secrets from a text, since a host that got them may repeat them.
func Conceal(text string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

const maxLine = 512 // characters

// Line makes a text fit for a line on a terminal, and redacts it.
func Line(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = Redact(strings.Join(strings.Fields(s), " "))
	if runes := []rune(s); len(runes) > maxLine {
		s = string(runes[:maxLine]) + "…"
	}
	return s
}

// Bare returns the cause in an error of net/http, whose text repeats the URL, which may
// hold credentials.
func Bare(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// An Error is an error in a registry's answer (distribution-spec v1.1, "Error Codes").
type Error struct {
	Code    string `json:"code"`
	Message string `json:"message"` // a line
}

var codePattern = regexp.Delayed(`^[A-Z][A-Z0-9_]{0,63}$`)

// Errors reads the errors in a registry's answer, without their details, whose form
// nobody knows. Codes are as [Code] returns them. ok is false if the answer isn't JSON.
func Errors(body []byte) (errs []Error, ok bool) {
	var answer struct {
		Errors []Error `json:"errors"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil, false
	}
	for _, e := range answer.Errors {
		errs = append(errs, Error{Code(e.Code), Line(e.Message)})
	}
	return errs, true
}

// Code returns s if the distribution-spec allows it as a code, else "".
func Code(s string) string {
	if !codePattern.MatchString(s) {
		return ""
	}
	return s
}
