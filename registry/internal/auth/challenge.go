package auth

import (
	"net/http"
	"strings"

	"github.com/containers/storage/pkg/regexp"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Challenge returns the first challenge of an answer that can be met, or else the first
// one. It returns nil if the answer has no challenge. plain says that the answer came
// by plain HTTP.
func Challenge(h http.Header, plain bool) *transport.Challenge {
	var first *transport.Challenge
	for _, header := range h.Values("WWW-Authenticate") {
		for _, ch := range ParseChallenges(header) {
			ch.Insecure = plain
			switch strings.ToLower(ch.Scheme) {
			case "bearer", "basic":
				return &ch
			}
			if first == nil {
				first = &ch
			}
		}
	}
	return first
}

var (
	// challengeItem is a word of a WWW-Authenticate header, with a value if it is a
	// parameter.
	challengeItem = regexp.Delayed(`^[\s,]*([^\s,="]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*))?`)
	backslash     = regexp.Delayed(`\\(.)`)
)

// ParseChallenges reads a WWW-Authenticate header (RFC 9110 section 11.6.1): schemes,
// each followed by name=value parameters, all separated by commas.
func ParseChallenges(header string) []transport.Challenge {
	var found []transport.Challenge
	for {
		at := challengeItem.FindStringSubmatchIndex(header)
		if at == nil {
			return found
		}
		word, value, isScheme := header[at[2]:at[3]], "", at[4] < 0
		if !isScheme {
			value = header[at[4]:at[5]]
		}
		header = header[at[1]:]
		if isScheme || len(found) == 0 {
			found = append(found, transport.Challenge{Scheme: word, Parameters: make(map[string]string)})
			continue
		}
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			value = backslash.ReplaceAllString(strings.TrimSuffix(quoted, `"`), "$1")
		}
		found[len(found)-1].Parameters[strings.ToLower(word)] = value
	}
}
