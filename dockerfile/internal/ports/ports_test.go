package ports_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile/internal/ports"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for word, want := range map[string][]string{
		"80":                    {"80/tcp"},
		"0":                     {"0/tcp"},
		"53/UDP":                {"53/udp"},
		"9000-9002/sctp":        {"9000/sctp", "9001/sctp", "9002/sctp"},
		"8080:80":               {"80/tcp"},
		"127.0.0.1:8080:80/tcp": {"80/tcp"},
		"127.0.0.1::80":         {"80/tcp"},
		"[::1]:8080-8081:80-81": {"80/tcp", "81/tcp"},
		"8080-8090:80":          {"80/tcp"},
		"80/":                   {"80/tcp"},
		":80":                   {"80/tcp"},
		"1-2:65534-65535/udp":   {"65534/udp", "65535/udp"},
	} {
		if got, err := ports.Parse(word); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q and %v, want %q", word, got, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"":          `"" is no number from 0 to 65535`,
		"x":         `"x" is no number from 0 to 65535`,
		"-1":        `"" is no number`,
		"65536":     "no number from 0 to 65535",
		"1-x":       `"x" is no number`,
		"2-1":       "the range 2-1 ends before it begins",
		"80/tpc":    "invalid protocol tpc: use tcp, udp or sctp",
		"a:80:80":   "invalid IP address: a",
		"x:80":      `host port: "x" is no number`,
		"1-3:80-81": "the ranges of host and container ports differ in size",
		"1:80-81":   "the ranges of host and container ports differ in size",
	} {
		if got, err := ports.Parse(word); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "invalid port: ") {
			t.Errorf("%s: %q and %v, want %s", word, got, err, want)
		}
	}
}
