package progress

import (
	"strconv"
	"strings"
)

// The renditions (ECMA-48, 8.3.117 SGR) that the tty view uses itself.
const (
	styleNone     = ""
	styleDone     = "\x1b[34m" // blue, like buildx
	styleCanceled = "\x1b[33m"
	styleError    = "\x1b[31m"
	styleDim      = "\x1b[2m"
	styleReset    = "\x1b[0m"
)

// harmless returns the SGR sequence with the parameters that set colours,
// weight, slant, underline or inversion. Blinking and concealed text, which
// could hide output, are left out. It returns "" if nothing remains.
func harmless(params string) string {
	if params == "" {
		return styleReset
	}
	if strings.Trim(params, "0123456789;") != "" {
		return "" // sub-parameters or private ones
	}
	in := strings.Split(params, ";")
	var out []string
	for len(in) > 0 {
		n := selection(in)
		if n > 0 {
			out = append(out, in[:n]...)
		}
		in = in[max(1, n):]
	}
	if len(out) == 0 {
		return ""
	}
	return "\x1b[" + strings.Join(out, ";") + "m"
}

// selection returns how many of the parameters form the first rendition, or 0
// if it isn't a harmless one.
func selection(params []string) int {
	if params[0] == "" {
		return 1 // the default, 0
	}
	p, err := strconv.Atoi(params[0])
	if err != nil {
		return 0
	}
	switch {
	case p == 38 || p == 48: // extended colours, ISO/IEC 8613-6
		n := 0
		if len(params) > 1 && params[1] == "5" {
			n = 3
		} else if len(params) > 1 && params[1] == "2" {
			n = 5
		}
		if n > len(params) {
			return 0
		}
		return n
	case p <= 4, p == 7, p >= 22 && p <= 24, p == 27, p >= 30 && p <= 49, p >= 90 && p <= 107:
		return 1
	}
	return 0
}
