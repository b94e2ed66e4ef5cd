package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/bobbuild/bob/cmd/bob/help"
	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/peterbourgon/ff/v3/ffcli"
	"golang.org/x/term"
)

// newHelpCommand makes the entry of help in the list of commands. run does the work.
func newHelpCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:       "help",
		ShortUsage: "bob help [command | topic]",
		ShortHelp:  "Show the page of a topic, or the help of a command",
		Exec:       cli.ShowHelp,
	}
}

// helpWith writes the page of the topic that args name and returns true, or returns
// false where args name a command, whose help is its -h. Topics and commands that
// share a name are about the same, and the page says more.
func helpWith(root *ffcli.Command, args []string, stdout io.Writer) (bool, error) {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return false, nil
	}
	topics := help.Topics()
	i := slices.IndexFunc(topics, func(t help.Topic) bool { return t.Name == args[0] })
	if i >= 0 {
		text := topics[i].Text
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
			text = help.Render(text)
		}
		_, err := io.WriteString(stdout, text)
		return true, err
	}
	var names []string
	for _, c := range root.Subcommands {
		if c.Name == args[0] {
			return false, nil
		}
		names = append(names, c.Name)
	}
	for _, t := range topics {
		names = append(names, t.Name)
	}
	return false, cli.Errorf("unknown command or topic %q%s; see bob help", args[0], cli.DidYouMean(args[0], names))
}

// topicList lists the topics and what they are about.
func topicList() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	fmt.Fprintf(w, "\nTopics (bob help TOPIC):\n")
	for _, t := range help.Topics() {
		fmt.Fprintf(w, "  %s\t%s\n", t.Name, t.Title)
	}
	_ = w.Flush() // to a strings.Builder
	return b.String()
}
