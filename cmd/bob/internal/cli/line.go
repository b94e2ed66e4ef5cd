package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/agext/levenshtein"
	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"
	"github.com/spf13/pflag"
)

// Run runs the command below root that args name. It writes help to stdout where args
// ask for it, and where the command only has commands below it. A command may have its
// own UsageFunc; it is [Usage] otherwise.
func Run(ctx context.Context, root *ffcli.Command, args []string, stdout io.Writer) error {
	var usage string
	for _, c := range append([]*ffcli.Command{root}, Commands(root)...) {
		prepare(c, func(text string) { usage = text })
	}
	args, err := arrange(root, args)
	if err != nil {
		return err
	}
	if err = root.Parse(args); err == nil {
		err = firstWrong(root.Run(ctx), args)
	} else if !errors.Is(err, flag.ErrHelp) {
		return parseError(err)
	}
	if errors.Is(err, flag.ErrHelp) {
		_, err = io.WriteString(stdout, usage)
	}
	return err
}

// ShowHelp is the Exec of a command that only has commands below it.
func ShowHelp(context.Context, []string) error { return flag.ErrHelp }

// Commands returns every command below c.
func Commands(c *ffcli.Command) []*ffcli.Command {
	var all []*ffcli.Command
	for _, s := range c.Subcommands {
		all = append(append(all, s), Commands(s)...)
	}
	return all
}

// prepare makes c read its variables, and leave the reporting of errors and of help
// to Run.
func prepare(c *ffcli.Command, usage func(string)) {
	if c.FlagSet == nil {
		c.FlagSet = flag.NewFlagSet(c.Name, flag.ContinueOnError)
	}
	c.FlagSet.SetOutput(io.Discard)
	c.Options = []ff.Option{ff.WithEnvVarPrefix("BOB")}
	text := c.UsageFunc
	if text == nil {
		text = Usage
	}
	c.UsageFunc = func(c *ffcli.Command) string {
		usage(text(c))
		return ""
	}
}

// Hidden is the help of a flag that usage doesn't show.
const Hidden = "hidden"

// posix returns the flags of fs as flags of pflag, with their short names. A short name
// is not a flag of its own: package ff would then read the variable of the long name
// though the short one is given.
func posix(fs *flag.FlagSet) *pflag.FlagSet {
	short := map[string]string{"file": "f", "memory": "m", "output": "o", "quiet": "q", "tag": "t"}
	flags := pflag.NewFlagSet(fs.Name(), pflag.ContinueOnError)
	flags.Usage = func() {}
	fs.VisitAll(func(f *flag.Flag) {
		p := pflag.PFlagFromGoFlag(f)
		p.Shorthand, p.DefValue = short[f.Name], "" // usage says what the default is
		p.Hidden = f.Usage == Hidden
		flags.AddFlag(p)
	})
	return flags
}

// arrange finds the command that args name below root and returns args with its flags
// before its other arguments, each as --name=value. It refuses unknown commands and
// flags.
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
		return nil, Errorf("unknown command %q%s; see bob help", args[n], DidYouMean(args[n], names))
	}
	arranged := slices.Clone(args[:n])
	flags := posix(c.FlagSet)
	err := flags.ParseAll(args[n:], func(f *pflag.Flag, value string) error {
		if l, ok := c.FlagSet.Lookup(f.Name).Value.(*List); ok {
			l.given = true
		}
		arranged = append(arranged, "--"+f.Name+"="+value)
		return nil
	})
	if errors.Is(err, pflag.ErrHelp) {
		return append(arranged, "-h"), nil
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return nil, unknownFlag(c.FlagSet, unknown)
	}
	if missing, ok := errors.AsType[*pflag.ValueRequiredError](err); ok {
		return nil, Errorf("flag needs an argument: --%s", missing.GetFlag().Name)
	}
	if err != nil {
		return nil, Errorf("%v", err)
	}
	return append(append(arranged, "--"), flags.Args()...), nil
}

func unknownFlag(fs *flag.FlagSet, unknown *pflag.NotExistError) error {
	written, long := "--"+unknown.GetSpecifiedName(), unknown.GetSpecifiedName()
	var known []string
	fs.VisitAll(func(f *flag.Flag) { known = append(known, "--"+f.Name) })
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		written, long = "-"+short, short
		known = slices.DeleteFunc(known, func(name string) bool { return name != "--"+long })
	}
	return Errorf("unknown flag %s%s; see %s --help", written, DidYouMean("--"+long, known), fs.Name())
}

// DidYouMean returns " (did you mean x?)" for the nearest known name, and "" if no name
// is near.
func DidYouMean(name string, known []string) string {
	best, at := max(3, len(strings.TrimLeft(name, "-"))/2+1), ""
	for _, k := range known {
		if d := levenshtein.Distance(name, k, nil); d < best {
			best, at = d, k
		}
	}
	if at == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", at)
}

// parseError makes the errors of package ff about flags readable.
func parseError(err error) error {
	text := err.Error()
	for _, prefix := range []string{"error parsing commandline arguments: ", "error parsing environment variables: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return Errorf("%s", strings.NewReplacer(" for flag -", " for flag --", " for -", " for --").Replace(text))
}

// Usage returns the help of a command.
func Usage(c *ffcli.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s\n", c.ShortUsage)
	if text := c.LongHelp; text != "" {
		fmt.Fprintf(&b, "\n%s\n", text)
	} else if c.ShortHelp != "" {
		fmt.Fprintf(&b, "\n%s\n", c.ShortHelp)
	}
	if len(c.Subcommands) > 0 {
		w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
		fmt.Fprintf(w, "\nCommands:\n")
		for _, s := range c.Subcommands {
			fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.ShortHelp)
		}
		_ = w.Flush() // to a strings.Builder
	}
	if flags := posix(c.FlagSet).FlagUsages(); flags != "" {
		fmt.Fprintf(&b, "\nFlags (each also reads the variable BOB_NAME):\n%s", flags)
	}
	return b.String()
}
