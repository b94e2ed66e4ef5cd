package expand_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// TestBounds checks that variables can't fill the memory: BASE is 60 kB, and each word
// would make gigabytes of it.
func TestBounds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 60000)
	env := shell.EnvsFromSlice([]string{"BASE=" + big, "S=" + big[:3000], "1=" + big})
	for _, word := range []string{
		"${BASE//x/" + big[:50000] + "}",
		"${BASE//x/$BASE}",
		"${BASE//x/$1a}",
		"${S//x/${S//x/$S}}",
		"${S//x/${S//x/${S//x/y}}}",
		`${BASE//x/"}"$BASE}`,
		`${BASE//x/'}'$BASE}`,
		`${BASE//x/\}$BASE}`,
		`${BASE//}/$BASE}${BASE//x/$BASE}`,
		`"${BASE//x/$BASE}"`,
		`${N:-${BASE//x/$BASE}}`,
		`${BASE//"/"x/$BASE}`,
		strings.Repeat("$BASE", 100),
	} {
		lex := expand.New('\\')
		tooLarge(t, word, func() error { _, err := lex.Word(word, env); return err })
		tooLarge(t, word, func() error { _, err := lex.Words(word, env); return err })
		if !strings.Contains(word, `"}"`) && !strings.Contains(word, `'}'`) { // without quotes that brace ends the expression
			lex.SkipProcessQuotes = true
			tooLarge(t, word, func() error { _, err := lex.Word(word, env); return err })
		}
	}
}

func tooLarge(t *testing.T, word string, expand func() error) {
	t.Helper()
	if err := expand(); err == nil || !strings.Contains(err.Error(), "the variables expand to more than") {
		t.Errorf("%.60s: got %.200v", word, err)
	}
}

// TestReplacement checks that ordinary replacements are not held for large ones.
func TestReplacement(t *testing.T) {
	t.Parallel()
	env := shell.EnvsFromSlice([]string{"PATH=/bin:/usr/bin", "V=a/b/c", "BIG=" + strings.Repeat("x", 100000)})
	for word, want := range map[string]string{
		`${PATH//:/ }`:               "/bin /usr/bin",
		`${V//\//_}`:                 "a_b_c",
		`${V//b/${V//\//-}}`:         "a/a-b-c/c",
		`${BIG:+y}${V//c/z}`:         "ya/b/z",
		`${V//b/x}${PATH//:/,}${N-}`: "a/x/c/bin,/usr/bin",
		`${BIG//x/yy}`:               strings.Repeat("yy", 100000),
	} {
		if got, err := expand.New('\\').Word(word, env); err != nil || got != want {
			t.Errorf("%s: %.200q and %v, want %.200q", word, got, err, want)
		}
	}
}

func TestConstant(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]bool{"a:b/c*": true, "": true, "$A": false, `a\b`: false, `"a"`: false, "'a'": false, "a`b": false} {
		if got := expand.Constant(word); got != want {
			t.Errorf("%q: %v", word, got)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	if got, want := expand.Names("$A/${B:-$C}$1$A x"), []string{"A", "B", "C", "1", "A"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
