package cli_test

import (
	"context"
	"flag"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// A line is what a command was given.
type line struct {
	file, args string
	tags       cli.List
	push       cli.Choice
	quiet      bool
}

// parse runs a command below bob with the arguments.
func (l *line) parse(t *testing.T, args ...string) error {
	t.Helper()
	fs := flag.NewFlagSet("bob build", flag.ContinueOnError)
	fs.StringVar(&l.file, "file", "", "the `path`")
	fs.Var(&l.tags, "tag", "a `name`; repeatable")
	fs.Var(&l.push, "push", "push")
	fs.BoolVar(&l.quiet, "quiet", false, "say nothing")
	build := &ffcli.Command{Name: "build", FlagSet: fs, Exec: func(_ context.Context, args []string) error {
		l.args = strings.Join(args, " ")
		return nil
	}}
	root := &ffcli.Command{Name: "bob", Subcommands: []*ffcli.Command{build}, Exec: cli.ShowHelp}
	return cli.Run(t.Context(), root, append([]string{"build"}, args...), io.Discard)
}

// Flags may stand anywhere, and short ones may stick to their values and to each other.
func TestFlagsAnywhere(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		tags, file, args string
		quiet, push      bool
	}{
		". -t x":                {tags: "x", args: "."},
		"-t x . -t y":           {tags: "x y", args: "."},
		". --tag=x --quiet":     {tags: "x", args: ".", quiet: true},
		"-f- .":                 {file: "-", args: "."},
		"-f - .":                {file: "-", args: "."},
		"-tname .":              {tags: "name", args: "."},
		"-qt x .":               {tags: "x", args: ".", quiet: true},
		"-":                     {args: "-"},
		"--push=false . --push": {args: ".", push: true},
		"--tag a=-b .":          {tags: "a=-b", args: "."},
		"-t x -- -dir":          {tags: "x", args: "-dir"},
	} {
		l := &line{}
		err := l.parse(t, strings.Fields(in)...)
		if err != nil || l.tags.String() != want.tags || l.file != want.file || l.args != want.args || l.quiet != want.quiet || l.push.Or(false) != want.push {
			t.Errorf("%q: got %+v, %v; want %+v", in, l, err, want)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"--tga x":        "unknown flag --tga (did you mean --tag?); see bob build --help",
		"-push":          "unknown flag -push (did you mean --push?); see bob build --help",
		"-file=x -x":     "unknown flag -x; see bob build --help",
		"-t":             "flag needs an argument: --tag",
		"--file":         "flag needs an argument: --file",
		"--push=perhaps": `invalid boolean value "perhaps" for --push: "perhaps" is neither true nor false`,
	} {
		err := (&line{}).parse(t, strings.Fields(in)...)
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
}

func TestRepeatableFlagsFromTheEnvironment(t *testing.T) {
	const value = "a=1\nb=two words,and commas"
	t.Setenv("BOB_TAG", value)
	for _, tt := range []struct {
		args, want []string
	}{
		{nil, []string{"a=1", "b=two words,and commas"}},
		{[]string{"--tag", "KEY=line one\nline two"}, []string{"KEY=line one\nline two"}},
		{[]string{"-t", value}, []string{value}},
		{[]string{"--tag=x=1", "--tag=" + value}, []string{"x=1", value}},
	} {
		l := &line{}
		if err := l.parse(t, tt.args...); err != nil || !slices.Equal(l.tags.Values, tt.want) {
			t.Errorf("%q: got %q, %v; want %q", tt.args, l.tags.Values, err, tt.want)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	got, err := cli.Fields(`type=oci, push,"dest=/a,b"`)
	want := []cli.Field{{Key: "type", Value: "oci", HasValue: true}, {Key: "push"}, {Key: "dest", Value: "/a,b", HasValue: true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if _, err := cli.Fields(`a"b`); err == nil {
		t.Error("a quote in a field passed")
	}
}
