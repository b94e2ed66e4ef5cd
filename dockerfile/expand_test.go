package dockerfile_test

import (
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
)

// TestExpansionBounds checks that variables can't fill the memory: BASE is 60
// kB, and each word would make gigabytes of it.
func TestExpansionBounds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 60000)
	base := imageWith("PATH=/bin", "BASE="+big, "S="+big[:3000], "1="+big)
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
		texts := []string{"ENV A=" + word, "COPY " + word + " /", "EXPOSE " + word, "ARG A=" + word}
		if !strings.Contains(word, `"}"`) && !strings.Contains(word, `'}'`) { // in a heredoc that brace ends the expression
			texts = append(texts, "COPY <<E /\n"+word+"\nE")
		}
		for _, text := range texts {
			_, _, err := mustPlan(t, "FROM a\n"+text+"\n", dockerfile.Options{}).Target().Steps(base)
			if err == nil || !strings.Contains(err.Error(), "the variables expand to more than") {
				t.Errorf("%.60s: got %.200v", text, err)
			}
		}
		// What RUN shows is not worth an error: it is then shown as written.
		steps := mustSteps(t, "FROM a\nRUN "+word+"\n", dockerfile.Options{}, base)
		if len(steps[0].Text) > len(word)+10 {
			t.Errorf("%.60s shows %d bytes", word, len(steps[0].Text))
		}
	}
}

// TestReplacement checks that ordinary replacements are not held for large ones.
func TestReplacement(t *testing.T) {
	t.Parallel()
	base := imageWith("PATH=/bin:/usr/bin", "V=a/b/c", "BIG="+strings.Repeat("x", 100000))
	for word, want := range map[string]string{
		`${PATH//:/ }`:               "/bin /usr/bin",
		`${V//\//_}`:                 "a_b_c",
		`${V//b/${V//\//-}}`:         "a/a-b-c/c",
		`${BIG:+y}${V//c/z}`:         "ya/b/z",
		`${V//b/x}${PATH//:/,}${N-}`: "a/x/c/bin,/usr/bin",
		`${BIG//x/yy}`:               strings.Repeat("yy", 100000),
	} {
		env := mustImage(t, "FROM a\nENV A=\""+word+"\"\n", dockerfile.Options{}, base).Config.Env
		if got := strings.TrimPrefix(env[len(env)-1], "A="); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
	// A long heredoc may hold many.
	body := strings.Repeat("line ${V//b/x} \"${PATH//:/}\" 'it' \\${V//a/b}\n", 2000)
	steps := mustSteps(t, "FROM a\nCOPY <<EOF /x\n"+body+"EOF\n", dockerfile.Options{}, base)
	if file, ok := copied(t, steps[0])[0].(*dockerfile.Inline); !ok || !strings.HasPrefix(string(file.Content), `line a/x/c "/bin/usr/bin" 'it' ${V//a/b}`) {
		t.Errorf("got %.100v", steps[0].Op)
	}
}
