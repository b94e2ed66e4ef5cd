package terminal

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestEscape(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"plain ü 漢 \"q\" \\":        "plain ü 漢 \"q\" \\",
		"\x1b]0;title\a":            `\x1b]0;title\a`,
		"a\r\nb\tc":                 `a\r\nb\tc`,
		"\x9b31m\xff":               `\x9b31m\xff`,
		"\u009b31m":                 `\u009b31m`,
		"\u202eright to left":       `\u202eright to left`,
		"\ufffd is itself":          "\ufffd is itself",
		"zero\u200bwidth\U000e0001": `zero\u200bwidth\U000e0001`,
	} {
		if got := Escape(s); got != want {
			t.Errorf("Escape(%q) = %s, want %s", s, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a\x1b[2Jb", "\u009b\u202e\U000e0001", "\x7f\xff", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkPrintable(t, Escape(s))
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		escaped := escapeJSON(string(encoded))
		checkPrintable(t, escaped)
		var halves strings.Builder
		w := JSON(&halves)
		for _, half := range [][]byte{encoded[:len(encoded)/2], encoded[len(encoded)/2:]} {
			if _, err := w.Write(half); err != nil {
				t.Fatal(err)
			}
		}
		if halves.String() != escaped {
			t.Errorf("in two writes %q, in one %q", halves.String(), escaped)
		}
		var want, got string
		if err := json.Unmarshal(encoded, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(escaped), &got); err != nil || got != want {
			t.Errorf("%q became %q: %v", want, got, err)
		}
	})
}

func checkPrintable(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if !unicode.IsPrint(r) {
			t.Errorf("%q is in %q", r, s)
		}
	}
}
