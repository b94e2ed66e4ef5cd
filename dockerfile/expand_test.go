package dockerfile_test

import (
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
)

// TestExpansionBounds checks that no instruction lets variables fill the memory: BASE is
// 60 kB, and each word would make megabytes or gigabytes of it.
func TestExpansionBounds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 60000)
	base := imageWith("PATH=/bin", "BASE="+big)
	for _, word := range []string{"${BASE//x/$BASE}", strings.Repeat("$BASE", 100)} {
		texts := []string{"ENV A=" + word, "COPY " + word + " /", "EXPOSE " + word, "ARG A=" + word, "COPY <<E /\n" + word + "\nE"}
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

// TestReplacement checks that a long heredoc may hold many replacements.
func TestReplacement(t *testing.T) {
	t.Parallel()
	base := imageWith("PATH=/bin:/usr/bin", "V=a/b/c")
	body := strings.Repeat("line ${V//b/x} \"${PATH//:/}\" 'it' \\${V//a/b}\n", 2000)
	steps := mustSteps(t, "FROM a\nCOPY <<EOF /x\n"+body+"EOF\n", dockerfile.Options{}, base)
	if file, ok := copied(t, steps[0])[0].(*dockerfile.Inline); !ok || !strings.HasPrefix(string(file.Content), `line a/x/c "/bin/usr/bin" 'it' ${V//a/b}`) {
		t.Errorf("got %.100v", steps[0].Op)
	}
}
