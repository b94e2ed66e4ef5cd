package progress

import (
	"bytes"
	"fmt"
)

// appendFailure appends the last output of v between lines of dashes if v
// failed.
func (v *vertex) appendFailure(b []byte) []byte {
	if !v.failed() {
		return b
	}
	const dashes = "------\n"
	b = append(b, dashes...)
	b = fmt.Appendf(b, " > %s:\n", v.name)
	if v.tail.dropped > 0 {
		b = fmt.Appendf(b, "[%d earlier lines left out]\n", v.tail.dropped)
	}
	for l := range v.tail.lastLines(tailLines) {
		b = append(appendStamp(b, l.age), ' ')
		b = append(b, l.text...)
		if bytes.IndexByte(l.text, '\x1b') >= 0 { // the line may leave a colour on
			b = append(b, styleReset...)
		}
		b = append(b, '\n')
	}
	return append(b, dashes...)
}
