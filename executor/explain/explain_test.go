package explain_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

func openStore(t *testing.T) *snapshot.Store {
	t.Helper()
	store, err := snapshot.Open(t.TempDir(), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// place is where the notes of these tests are kept.
var place = digest.FromString("place")

// step returns a step with the inputs, each a name and a value.
func step(text, parent string, inputs ...[2]string) explain.Step {
	r := recipe.New("step")
	r.Hidden(text, parent)
	for _, in := range inputs {
		r.Add(in[0], in[1])
	}
	return explain.Step{Key: r.Key(), Text: text, Parent: digest.FromString(parent), Inputs: r.Inputs()}
}

// build notes the steps as one build whose known results are those of the keys. It
// returns the cases.
func build(t *testing.T, store *snapshot.Store, known []digest.Digest, steps ...explain.Step) []explain.Case {
	t.Helper()
	log := explain.NewLog(true)
	progress := event.NewReporter(nil, time.Now)
	book := explain.Open(store, place, "base image b")
	for i, s := range steps {
		title := fmt.Sprintf("[%d]", i+1)
		hit := slices.Contains(known, s.Key)
		e := book.Begin(s)
		log.Add(t.Context(), progress.Start(title), e, title, hit)
		if err := e.End(t.Context(), title, hit); err != nil {
			t.Fatal(err)
		}
	}
	if err := book.Save(); err != nil {
		t.Fatal(err)
	}
	return log.Cases()
}

// TestReasons builds one step, and then another.
func TestReasons(t *testing.T) {
	t.Parallel()
	user, dir := [2]string{"USER", "a"}, [2]string{"WORKDIR", "/"}
	variable := [2]string{explain.Variable + "V", "1"}
	order := [2]string{explain.Order, "V W"}
	old := step("RUN x", "below", user, dir, variable, order)
	image := func(s explain.Step, base string) explain.Step {
		s.Base = digest.FromString(base)
		return s
	}
	anew := step("RUN y", "below")
	anew.Anew = "--no-cache"
	var many [][2]string
	for i := range 7 {
		many = append(many, [2]string{fmt.Sprintf("%svariable%d", explain.Variable, i), "1"})
	}
	for name, test := range map[string]struct {
		old, now explain.Step
		want     string
	}{
		"the same":            {old, old, "its result is not in the cache any more"},
		"an option":           {old, step("RUN x", "below", [2]string{"USER", "b"}, dir, variable, order), "USER changed"},
		"two options":         {old, step("RUN x", "below", [2]string{"USER", "b"}, [2]string{"WORKDIR", "/d"}, variable, order), "USER changed, WORKDIR changed"},
		"a variable":          {old, step("RUN x", "below", user, dir, [2]string{explain.Variable + "V", "2"}, order), "variable V changed"},
		"another variable":    {old, step("RUN x", "below", user, dir, [2]string{explain.Variable + "W", "1"}, [2]string{explain.Order, "W"}), "variable W is new, variable V is gone"},
		"the order":           {old, step("RUN x", "below", user, dir, variable, [2]string{explain.Order, "W V"}), "order of the variables changed"},
		"the instruction":     {old, step("RUN y", "below", user, dir, variable, order), "instruction changed"},
		"both":                {old, step("RUN y", "below", [2]string{"USER", "b"}, dir, variable, order), "USER changed"},
		"an input more":       {old, step("RUN x", "below", user, dir, variable, order, [2]string{"--network", "none"}), "--network changed"},
		"that and the text":   {old, step("RUN y", "below", user, dir, variable, order, [2]string{"--network", "none"}), "instruction changed"},
		"below":               {old, step("RUN x", "other", user, dir, variable, order), "base image b changed"},
		"the image below":     {image(old, "1"), image(step("RUN x", "other", user, dir, variable, order), "2"), "base image b changed from " + digest.FromString("1").String() + " to " + digest.FromString("2").String()},
		"the first build":     {explain.Step{}, old, "no earlier build of this step is known"},
		"made anew":           {old, anew, "--no-cache"},
		"more than are named": {step("RUN x", "below", user), step("RUN x", "below", append(many, user)...), "variable variable0 is new, variable variable1 is new, variable variable2 is new, variable variable3 is new, variable variable4 is new, and 2 more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := openStore(t)
			if test.old.Key != "" {
				build(t, store, nil, test.old)
			}
			want := explain.Case{Step: "[1]", Reason: test.want}
			got := build(t, store, nil, test.now)
			if len(got) != 1 || got[0].Step != want.Step || got[0].Hit || got[0].Reason != want.Reason {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestStepsBelow: a step whose own inputs are the same names the step that it lies on.
func TestStepsBelow(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	first, second := step("RUN 1", "base", [2]string{"USER", "a"}), step("RUN 2", "1", [2]string{"USER", "a"})
	build(t, store, nil, first, second)
	changed := step("RUN 1", "base", [2]string{"USER", "b"})
	got := build(t, store, nil, changed, step("RUN 2", "1b", [2]string{"USER", "a"}))
	if len(got) != 2 || got[0].Reason != "USER changed" || got[1].Reason != "step [1] changed" {
		t.Errorf("got %+v", got)
	}
	got = build(t, store, []digest.Digest{changed.Key}, changed)
	if len(got) != 1 || !got[0].Hit || got[0].Reason != "" {
		t.Errorf("of a known result: %+v", got)
	}
}

// TestNotesStay: a build that ends early leaves the notes of the steps that it didn't
// reach.
func TestNotesStay(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	first, second := step("RUN 1", "base", [2]string{"USER", "a"}), step("RUN 2", "1", [2]string{"USER", "a"})
	build(t, store, nil, first, second)
	build(t, store, []digest.Digest{first.Key}, first)
	got := build(t, store, []digest.Digest{first.Key}, first, step("RUN 2", "1", [2]string{"USER", "b"}))
	if len(got) != 2 || got[1].Reason != "USER changed" {
		t.Errorf("got %+v", got)
	}
}

// TestNotAsked: without being asked a log stays empty.
func TestNotAsked(t *testing.T) {
	t.Parallel()
	log := explain.NewLog(false)
	e := explain.Open(openStore(t), place, "").Begin(step("RUN x", "below"))
	log.Add(t.Context(), event.NewReporter(nil, time.Now).Start("[1]"), e, "[1]", false)
	if got := log.Cases(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}
