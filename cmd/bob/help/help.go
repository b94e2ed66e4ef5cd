// Package help holds the pages of "bob help TOPIC".
//
// A page is a file of Markdown beside this one, and its topic is the name of the file
// without ".md". Pages are written to be read as they are: lines of at most 100
// columns, lists in place of wide tables. Their first line is a heading that begins
// with the topic, as "# cache: results that are known already".
package help

import (
	"embed"
	"strings"
)

//go:embed *.md
var pages embed.FS

// A Topic is the subject of one page.
type Topic struct {
	// Name is what the user types.
	Name string
	// Title tells in one line what the page is about.
	Title string
	// Text is the page, Markdown that ends with a newline.
	Text string
}

// Topics returns the topics in the order of their names.
func Topics() []Topic {
	entries, err := pages.ReadDir(".")
	if err != nil {
		panic(err) // the directory is embedded in the program
	}
	topics := make([]Topic, 0, len(entries))
	for _, e := range entries {
		text, err := pages.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		heading, _, _ := strings.Cut(string(text), "\n")
		_, title, _ := strings.Cut(heading, ": ")
		topics = append(topics, Topic{strings.TrimSuffix(e.Name(), ".md"), title, string(text)})
	}
	return topics
}

// Render returns a page for a terminal: headings and code are set apart by bold and
// faint type in place of Markdown's marks.
func Render(text string) string {
	const bold, faint, plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			b.WriteString(bold + strings.TrimLeft(line, "# ") + plain)
		case strings.HasPrefix(line, "    "):
			b.WriteString(faint + line + plain)
		default:
			b.WriteString(spans(line, bold, plain))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// spans returns the line with on and off in place of the marks around code and
// emphasis. A mark without a partner in the line stays.
func spans(line, on, off string) string {
	for _, mark := range []string{"**", "`"} {
		parts := strings.Split(line, mark)
		var b strings.Builder
		for i, part := range parts {
			switch {
			case i == 0:
			case i%2 == 0:
				b.WriteString(off)
			case i == len(parts)-1:
				b.WriteString(mark)
			default:
				b.WriteString(on)
			}
			b.WriteString(part)
		}
		line = b.String()
	}
	return line
}
