package spelling_test

import (
	"errors"
	"testing"

	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

func TestDidYouMean(t *testing.T) {
	t.Parallel()
	options := []string{"build", "builder", "guild", "test"}
	for word, want := range map[string]string{
		"biuld":   "build", // letters swapped
		"buil":    "build",
		"xbuild":  "build",
		"buildre": "builder",
		"guilt":   "guild",
		"tset":    "test",
		"build":   "guild", // the word itself is no suggestion
		"wild":    "build", // two mistakes
		"wilt":    "",      // three
		"xyz":     "",
		"":        "",
	} {
		if want != "" {
			want = " (did you mean " + want + "?)"
		}
		if got := spelling.DidYouMean(word, options); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	other := errors.New("other")
	for _, test := range []struct {
		err  error
		want string
	}{
		{spelling.Instruction(&instructions.UnknownInstructionError{Instruction: "RNU"}, "RNU"), "unknown instruction: RNU (did you mean RUN?)"},
		{spelling.Instruction(&instructions.UnknownInstructionError{Instruction: "rnu"}, "rnu"), "unknown instruction: rnu (did you mean run?)"},
		{spelling.Instruction(errors.New("unknown flag: --chwn"), "COPY"), "unknown flag: --chwn (did you mean chown?)"},
		{spelling.Instruction(errors.New("unknown flag: --chwn"), "LABEL"), "unknown flag: --chwn"},
		{spelling.Instruction(other, "COPY"), "other"},
		{spelling.Mount(errors.New(`unsupported mount type "chace"`)), `unsupported mount type "chace" (did you mean cache?)`},
		{spelling.Mount(errors.New(`unsupported sharing value "lokced"`)), `unsupported sharing value "lokced" (did you mean locked?)`},
		{spelling.Mount(other), "other"},
	} {
		if test.err.Error() != test.want {
			t.Errorf("got %q, want %q", test.err, test.want)
		}
	}
}
