package main

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/agext/levenshtein"
	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"
)

const envPrefix = "BOB"

// envOptions has every flag of a command read its BOB_ variable.
func envOptions() []ff.Option { return []ff.Option{ff.WithEnvVarPrefix(envPrefix)} }

// shortNames returns the flags that have a short name, by that name. A short name
// is another way to write a flag and no flag itself: as one it would not keep the
// variable of the long one from being read.
func shortNames() map[string]string {
	return map[string]string{"f": "file", "m": "memory", "o": "output", "q": "quiet", "t": "tag"}
}

// A list is a flag that may be repeated. The variable that stands for it holds
// one value a line; values on the command line are taken as they are.
type list struct {
	values []string
	// given says that the flag is on the command line: its variable isn't read then.
	given bool
}

func (l *list) String() string { return strings.Join(l.values, " ") }

func (l *list) Set(s string) error {
	if l.given {
		l.values = append(l.values, s)
		return nil
	}
	l.values = append(l.values, strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })...)
	return nil
}

// A text is a flag with one value.
type text string

func (t *text) String() string     { return string(*t) }
func (t *text) Set(s string) error { *t = text(s); return nil }

// A choice is a flag that may be left unset.
type choice struct {
	set, value bool
}

func (c *choice) String() string   { return "" }
func (c *choice) IsBoolFlag() bool { return true }

func (c *choice) Set(s string) error {
	c.set = true
	switch strings.ToLower(s) {
	case "true", "1", "yes":
		c.value = true
	case "false", "0", "no":
		c.value = false
	default:
		return fmt.Errorf("%q is neither true nor false", s)
	}
	return nil
}

// or returns the choice, and otherwise if none was made.
func (c *choice) or(otherwise bool) bool {
	if c.set {
		return c.value
	}
	return otherwise
}

// arrange finds the command that args name below root and returns args with
// its flags before its other arguments. It refuses what no command knows.
func arrange(root *ffcli.Command, args []string) ([]string, error) {
	c, n := root, 0
	for n < len(args) {
		i := slices.IndexFunc(c.Subcommands, func(s *ffcli.Command) bool { return s.Name == args[n] })
		if i < 0 {
			break
		}
		c, n = c.Subcommands[i], n+1
	}
	if n < len(args) && len(c.Subcommands) > 0 && !strings.HasPrefix(args[n], "-") {
		var names []string
		for _, s := range c.Subcommands {
			names = append(names, s.Name)
		}
		return nil, usageErrorf("unknown command %q%s; see bob help", args[n], didYouMean(args[n], names, ""))
	}
	rest, err := interspersed(c.FlagSet, args[n:])
	return append(slices.Clip(args[:n]), rest...), err
}

// interspersed returns args with the flags of fs before the other arguments,
// which is the only order that package flag understands, and with values that
// stick to a short flag (-f-, -tname) set apart. Short names become long ones. Lists
// learn that they are given.
func interspersed(fs *flag.FlagSet, args []string) ([]string, error) {
	var flags, rest []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		f := lookup(fs, name)
		if f == nil && arg[1] != '-' {
			if short := lookup(fs, arg[1:2]); short != nil && !isBool(short) {
				f, value, hasValue = short, arg[2:], true
			}
		}
		if f != nil {
			if l, ok := f.Value.(*list); ok {
				l.given = true
			}
		}
		switch {
		case name == "h", name == "help":
			flags = append(flags, arg)
		case f == nil:
			return nil, unknownFlag(fs, name)
		case hasValue:
			flags = append(flags, "--"+f.Name+"="+value)
		case isBool(f) || i+1 == len(args):
			flags = append(flags, "--"+f.Name)
		default:
			i++
			flags = append(flags, "--"+f.Name, args[i])
		}
	}
	if len(rest) > 0 {
		flags = append(flags, "--")
	}
	return append(flags, rest...), nil
}

// lookup returns the flag of fs called name, long or short; nil if there is none.
func lookup(fs *flag.FlagSet, name string) *flag.Flag {
	if long, ok := shortNames()[name]; ok {
		name = long
	}
	return fs.Lookup(name)
}

func unknownFlag(fs *flag.FlagSet, name string) error {
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, f.Name) })
	return usageErrorf("unknown flag --%s%s; see %s --help", name, didYouMean(name, known, "--"), fs.Name())
}

// didYouMean returns a suggestion of a known name, empty if none is near.
func didYouMean(name string, known []string, prefix string) string {
	best, at := max(3, len(name)/2+1), ""
	for _, k := range known {
		if d := levenshtein.Distance(name, k, nil); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s%s?)", prefix, at)
}

// parseError makes what package ff says of a flag readable.
func parseError(err error) error {
	text := err.Error()
	for _, prefix := range []string{"error parsing commandline arguments: ", "error parsing environment variables: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	text = strings.ReplaceAll(text, " for flag -", " for flag --")
	return usageErrorf("%s", strings.Replace(text, "flag needs an argument: -", "flag needs an argument: --", 1))
}

func isBool(f *flag.Flag) bool {
	b, ok := f.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// usageText is what help prints of a command.
func usageText(c *ffcli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n", c.ShortUsage)
	if text := c.LongHelp; text != "" {
		fmt.Fprintf(&b, "\n%s\n", text)
	} else if c.ShortHelp != "" {
		fmt.Fprintf(&b, "\n%s\n", c.ShortHelp)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	if len(c.Subcommands) > 0 {
		fmt.Fprintf(w, "\nCommands:\n")
		for _, s := range c.Subcommands {
			fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.ShortHelp)
		}
	}
	short := make(map[string]string)
	for s, long := range shortNames() {
		short[long] = "-" + s + ", "
	}
	heading := "\nFlags (each also reads the variable BOB_NAME):\n"
	c.FlagSet.VisitAll(func(f *flag.Flag) {
		fmt.Fprint(w, heading)
		heading = ""
		name, usage := flag.UnquoteUsage(f)
		if isBool(f) {
			name = ""
		}
		fmt.Fprintf(w, "  %4s--%s %s\t%s\n", short[f.Name], f.Name, name, usage)
	})
	_ = w.Flush() // of a strings.Builder
	return b.String()
}
