package executor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/opencontainers/go-digest"
)

// Kinds of records that say what steps were made of: the notes of a stage, by its
// place, and the sums of files of this machine, by the key of the step that read them.
const (
	notesKind = "notes-2"
	filesKind = "files-2"
)

// maxFiles is of how many files the sums are remembered for one step.
const maxFiles = 20_000

// A StepCache says whether the result of a step was known.
type StepCache struct {
	Step string `json:"step"` // as shown in the progress
	Hit  bool   `json:"hit"`
	// Reason says what kept a known result from being used, "" for a hit.
	Reason string `json:"reason,omitempty"`

	vertex int
}

// Names of inputs that explanations treat in their own way.
const (
	inputText  = "instruction"
	inputBelow = "below"
	inputOrder = "order of the variables"
	prefixVar  = "variable "
)

// A note is what is remembered of a step beside its result.
type note struct {
	Key    digest.Digest  `json:"key"`
	Inputs []recipe.Input `json:"inputs"`
}

// localFiles are the selections of c that lie in directories of this machine.
func (c *copying) localFiles() (all []*filecopy.Selection) {
	for _, p := range c.parts {
		if p, ok := p.(*pathPart); ok && c.from.key == "" && p.selection != nil {
			all = append(all, p.selection)
		}
	}
	return all
}

// localFiles are the selections of mounts that lie in directories of this machine.
func (found mountSources) localFiles() (all []*filecopy.Selection) {
	for _, m := range found {
		if m != nil && m.selection != nil {
			all = append(all, m.selection)
		}
	}
	return all
}

// An explanation is what a step's key was made of, for the notes.
type explanation struct {
	inputs []recipe.Input
	files  []*filecopy.Selection // of this machine
	why    string                // a known result won't do, "" if it will

	book  *notebook // nil for what is no step
	below string    // what the step lies on, for the reader
	place int       // among the steps
}

// A notebook is what is remembered of the steps of a stage at one place: this one's
// name in a Dockerfile that is built with a directory as context.
type notebook struct {
	b     *build
	key   digest.Digest
	known []note // by earlier builds, in the order of the steps
	data  []byte // that is known
	notes []note // of this build
	below string // what the next step lies on, for the reader
}

// notebook opens what earlier builds have noted of s.
func (b *build) notebook(s *dockerfile.Stage) *notebook {
	dir := b.opts.Context
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		dir = abs
	}
	if b.Store.Holds(dir) { // another one each time
		dir = ""
	}
	name := cmp.Or(s.Name, fmt.Sprint(s.Index))
	n := &notebook{b: b, key: recipe.Key("place", s.Location.File, dir, b.platformPrefix(s), name)}
	if data, err := b.Store.Record(notesKind, n.key); err == nil && json.Unmarshal(data, &n.known) == nil {
		n.data = data
	}
	switch {
	case s.Base.Stage != nil:
		n.below = "stage " + cmp.Or(s.Base.Stage.Name, fmt.Sprint(s.Base.Stage.Index))
	case s.Base.Reference != "":
		n.below = "base image " + s.Base.Reference
	case s.Base.Context != "":
		n.below = "context " + s.Base.Context
	}
	return n
}

// save remembers the notes of this build. Those of steps that it didn't come to stay.
func (n *notebook) save() error {
	all := n.notes
	if len(n.known) > len(all) {
		all = append(slices.Clip(all), n.known[len(all):]...)
	}
	data, err := json.Marshal(all)
	if err != nil || bytes.Equal(data, n.data) || len(all) == 0 {
		return err
	}
	return n.b.Store.PutRecord(notesKind, n.key, data)
}

// open completes the inputs of op, which is that of t and comes after st.
func (n *notebook) open(st *state, t task, op *operation) {
	below := recipe.Short(st.key)
	if len(n.notes) == 0 && t.stage.Base.Reference != "" {
		below += " " + st.from.String()
	}
	op.inputs = append([]recipe.Input{
		{Name: inputText, Value: recipe.Short(digest.FromString(t.Text))},
		{Name: inputBelow, Value: below},
	}, op.inputs...)
	op.book, op.below, op.place = n, n.below, len(n.notes)
	switch {
	case n.b.opts.NoCache:
		op.why = "--no-cache"
	case t.stage.NoCache:
		op.why = "--no-cache-filter"
	case st.basis == anew:
		op.why = n.below + " was made anew"
	case op.basis == anew:
		op.why = "what it mounts was made anew"
	}
}

// close notes the step t, whose operation op came to f.
func (n *notebook) close(ctx context.Context, t task, op *operation, f *finding) error {
	this := note{op.key, op.inputs}
	if i := slices.IndexFunc(n.known, func(old note) bool { return old.Key == op.key }); i >= 0 && f.hit {
		this = n.known[i] // may tell more: of an alias the contents are not known
	}
	n.notes = append(n.notes, this)
	n.below = "step " + t.title()
	if f.hit || len(op.files) == 0 {
		return nil
	}
	files, err := sumFiles(ctx, op.files)
	if err != nil {
		return err
	}
	return n.b.results.remember(filesKind, op.key, files)
}

// fileList is the files that a step read of a directory of this machine.
type fileList struct {
	Count int               `json:"count"`
	Sums  map[string]string `json:"sums,omitempty"` // by path; none of too many
}

// sumFiles lists the files of the selections.
func sumFiles(ctx context.Context, selections []*filecopy.Selection) (*fileList, error) {
	list := &fileList{Sums: make(map[string]string)}
	for _, s := range selections {
		err := s.Each(ctx, func(path string, sum filecopy.Sum) error {
			list.Count++
			if list.Count <= maxFiles {
				list.Sums[path] = fmt.Sprintf("%x", sum[:6])
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if list.Count > maxFiles {
		list.Sums = nil
	}
	return list, nil
}

// explain tells, if it was asked for, whether the result of op is known and else why
// not. It is called when that is found out, before anything is run.
func (b *build) explain(ctx context.Context, v *event.Vertex, op *operation, title string, hit bool) {
	if !b.opts.ExplainCache || op.book == nil {
		return
	}
	c := StepCache{Step: title, Hit: hit, vertex: v.Number()}
	if !hit {
		c.Reason = op.why
		if c.Reason == "" {
			c.Reason = op.book.why(ctx, op)
		}
	}
	b.mu.Lock()
	b.explained = append(b.explained, c)
	b.mu.Unlock()
	v.Explain(hit, c.Reason)
}

// cacheUse returns what was explained, in the order of the progress.
func (b *build) cacheUse() []StepCache {
	b.mu.Lock()
	defer b.mu.Unlock()
	slices.SortFunc(b.explained, func(a, b StepCache) int { return cmp.Compare(a.vertex, b.vertex) })
	return b.explained
}

// why returns what is another input of op than of the nearest step that is noted.
func (n *notebook) why(ctx context.Context, op *operation) string {
	old, exact := n.nearest(op)
	switch {
	case old == nil:
		return "no earlier build of this step is known"
	case exact:
		return "its result is not in the cache any more"
	}
	changes := differences(old.Inputs, op.inputs, op.below)
	if slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, recipe.SourcePrefix) }) {
		if files := n.fileChanges(ctx, old, op); len(files) > 0 {
			changes = slices.DeleteFunc(changes, func(c string) bool {
				return strings.HasPrefix(c, recipe.SourcePrefix)
			})
			changes = append(changes, files...)
		}
	}
	if len(changes) == 0 {
		return "an input changed that is not noted"
	}
	return list(changes)
}

// nearest returns the note of an earlier build that has the most inputs in common with
// op, best the one at its place. It is exact if all are the same.
func (n *notebook) nearest(op *operation) (best *note, exact bool) {
	most := 0
	for i := range n.known {
		old := &n.known[i]
		if old.Key == op.key {
			return old, true
		}
		score := 0
		for _, in := range op.inputs {
			if slices.Contains(old.Inputs, in) {
				score += 2
			}
		}
		if i == op.place {
			score++
		}
		if score > most {
			best, most = old, score
		}
	}
	return best, false
}

// differences tells what is other in now than in old. below is what the step lies on.
func differences(old, now []recipe.Input, below string) (changes []string) {
	was, is := byName(old), byName(now)
	sameText := was[inputText].Value == is[inputText].Value
	sameVars := true
	for _, in := range now {
		before, known := was[in.Name]
		switch {
		case in.Name == inputText, in.Name == inputBelow, in.Name == inputOrder:
		case known && (before.Value == in.Value || before.Value == "" || in.Value == ""):
		case strings.HasPrefix(in.Name, prefixVar) && !known:
			changes, sameVars = append(changes, in.Name+" is new"), false
		case known || sameText:
			changes = append(changes, in.Name+" changed")
		}
	}
	for _, in := range old {
		if _, still := is[in.Name]; !still && strings.HasPrefix(in.Name, prefixVar) {
			changes, sameVars = append(changes, in.Name+" is gone"), false
		}
	}
	order, known := was[inputOrder]
	if now, still := is[inputOrder]; known && still && sameVars && order != now {
		changes = append(changes, inputOrder+" changed")
	}
	if !sameText && len(changes) == 0 {
		changes = append(changes, inputText+" changed")
	}
	return append(changes, belowChange(was[inputBelow].Value, is[inputBelow].Value, below)...)
}

func byName(all []recipe.Input) map[string]recipe.Input {
	m := make(map[string]recipe.Input, len(all))
	for _, in := range all {
		m[in.Name] = in
	}
	return m
}

// belowChange tells that a step lies on something else. A value is a key and, of an
// image, a digest.
func belowChange(old, now, below string) []string {
	oldKey, oldImage, _ := strings.Cut(old, " ")
	key, image, _ := strings.Cut(now, " ")
	switch {
	case oldKey == key:
		return nil
	case oldImage != "" && image != "":
		return []string{fmt.Sprintf("%s changed from %s to %s", below, oldImage, image)}
	}
	return []string{below + " changed"}
}

// fileChanges names the files that op reads and that are not as the step of old read
// them.
func (n *notebook) fileChanges(ctx context.Context, old *note, op *operation) (changes []string) {
	data, err := n.b.Store.Record(filesKind, old.Key)
	if err != nil || len(op.files) == 0 {
		return nil
	}
	var was fileList
	if json.Unmarshal(data, &was) != nil {
		return nil
	}
	is, err := sumFiles(ctx, op.files)
	if err != nil {
		return nil
	}
	if was.Sums == nil || is.Sums == nil {
		return []string{fmt.Sprintf("files changed: there were %d, there are %d", was.Count, is.Count)}
	}
	for _, path := range slices.Sorted(maps.Keys(is.Sums)) {
		switch sum, known := was.Sums[path]; {
		case !known:
			changes = append(changes, "file "+path+" is new")
		case sum != is.Sums[path]:
			changes = append(changes, "file "+path+" changed")
		}
	}
	for _, path := range slices.Sorted(maps.Keys(was.Sums)) {
		if _, still := is.Sums[path]; !still {
			changes = append(changes, "file "+path+" is missing")
		}
	}
	return changes
}

// maxChanges is how many changes one explanation tells.
const maxChanges = 5

func list(changes []string) string {
	if more := len(changes) - maxChanges; more > 0 {
		changes = append(slices.Clip(changes[:maxChanges]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(changes, ", ")
}
