package registry

import (
	"regexp"
	"strings"
	"unicode"
)

var (
	userinfoPattern = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"']*@`)
	queryPattern    = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'?]*)\?[^\s"']*`)
	schemePattern   = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}`)
	tokenPattern    = regexp.MustCompile(`(?i)("?(?:access_|refresh_|id_)?(?:token|password|secret)"?\s*[:=]\s*"?)[^\s"',}&]+`)
)

// redactText takes out of a text what may be a credential: user and password
// and query of URLs, authorisation headers, token fields.
func redactText(s string) string {
	s = userinfoPattern.ReplaceAllString(s, "$1")
	s = queryPattern.ReplaceAllString(s, "$1")
	s = schemePattern.ReplaceAllString(s, "$1 [redacted]")
	return tokenPattern.ReplaceAllString(s, "$1[redacted]")
}

const maxWords = 512

// words makes a registry's text fit for a line on a terminal.
func words(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = redactText(strings.Join(strings.Fields(s), " "))
	if runes := []rune(s); len(runes) > maxWords {
		s = string(runes[:maxWords]) + "…"
	}
	return s
}
