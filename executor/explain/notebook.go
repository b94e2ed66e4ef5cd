// Package explain tells why the result of a step wasn't known.
//
// Besides its results the store remembers what steps were made of, in a [Notebook] for
// each stage of a Dockerfile in a directory: the digests of their inputs (see package
// recipe), and of the files of this machine that they read. The inputs that differ from
// the most similar step of an earlier build are the reason of a miss.
package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// Kinds of records that say what steps were made of: the notes of a stage, by its
// place, and the sums of files of this machine, by the key of the step that read them.
const (
	notesKind = "notes-2"
	filesKind = "files-2"
)

// A note is what is remembered of a step beside its result.
type note struct {
	Key    digest.Digest  `json:"key"`
	Inputs []recipe.Input `json:"inputs"`
}

// A Notebook holds the notes about the steps of a stage at one place. A Notebook and
// its entries are used by one goroutine at a time.
type Notebook struct {
	store *snapshot.Store
	place digest.Digest
	known []note // by earlier builds, in the order of the steps
	data  []byte // that is known
	notes []note // of this build
	below string // what the next step lies on, for the reader
}

// Open opens the notes of earlier builds at the place. below names what the first step
// lies on, for the reader.
func Open(store *snapshot.Store, place digest.Digest, below string) *Notebook {
	n := &Notebook{store: store, place: place, below: below}
	if data, err := store.Record(notesKind, place); err == nil && json.Unmarshal(data, &n.known) == nil {
		n.data = data
	}
	return n
}

// Below returns what the next step lies on, for the reader.
func (n *Notebook) Below() string { return n.below }

// Save remembers the notes of this build. Older notes of steps that this build didn't
// reach stay.
func (n *Notebook) Save() error {
	all := n.notes
	if len(n.known) > len(all) {
		all = append(slices.Clip(all), n.known[len(all):]...)
	}
	data, err := json.Marshal(all)
	if err != nil || bytes.Equal(data, n.data) || len(all) == 0 {
		return err
	}
	return n.store.PutRecord(notesKind, n.place, data)
}

// A Step holds the inputs of a step.
type Step struct {
	Key    digest.Digest
	Text   string                // of the instruction
	Parent digest.Digest         // the key of what it lies on
	Base   digest.Digest         // the manifest of the image that its stage begins with, "" without an image
	Inputs []recipe.Input        // of its recipe
	Files  []*filecopy.Selection // of this machine
	// Anew says why a known result isn't used, "" if it is used.
	Anew string
}

// An Entry is a step of this build in a notebook.
type Entry struct {
	note

	book  *Notebook
	files []*filecopy.Selection
	anew  string
	below string // what the step lies on, for the reader
	place int    // among the steps
}

// Begin returns the entry of s, which is the next step.
func (n *Notebook) Begin(s Step) *Entry {
	below := recipe.Short(s.Parent)
	if len(n.notes) == 0 && s.Base != "" {
		below += " " + s.Base.String()
	}
	inputs := append([]recipe.Input{
		{Name: inputText, Value: recipe.Short(digest.FromString(s.Text))},
		{Name: inputBelow, Value: below},
	}, s.Inputs...)
	return &Entry{note: note{s.Key, inputs}, book: n, files: s.Files, anew: s.Anew, below: n.below, place: len(n.notes)}
}

// End notes the step, which readers know by its title, and whether its result was known.
func (e *Entry) End(ctx context.Context, title string, known bool) error {
	n, this := e.book, e.note
	if i := slices.IndexFunc(n.known, func(old note) bool { return old.Key == e.Key }); i >= 0 && known {
		this = n.known[i] // the old note may say more: the content of a source that wasn't read is not known
	}
	n.notes = append(n.notes, this)
	n.below = "step " + title
	if known || len(e.files) == 0 {
		return nil
	}
	files, err := sumFiles(ctx, e.files)
	if err != nil {
		return err
	}
	data, err := json.Marshal(files)
	if err != nil {
		return err
	}
	return n.store.PutRecord(filesKind, e.Key, data)
}

// why says which inputs of the step differ from the nearest step that is noted.
func (e *Entry) why(ctx context.Context) string {
	old, exact := e.nearest()
	switch {
	case old == nil:
		return "no earlier build of this step is known"
	case exact:
		return "its result is not in the cache any more"
	}
	changes := differences(old.Inputs, e.Inputs, e.below)
	if slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(c, recipe.SourcePrefix) }) {
		if files := e.fileChanges(ctx, old); len(files) > 0 {
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
// e, preferably the note at its place. It is exact if all are the same.
func (e *Entry) nearest() (best *note, exact bool) {
	known := e.book.known
	most := 0
	for i := range known {
		old := &known[i]
		if old.Key == e.Key {
			return old, true
		}
		score := 0
		for _, in := range e.Inputs {
			if slices.Contains(old.Inputs, in) {
				score += 2
			}
		}
		if i == e.place {
			score++
		}
		if score > most {
			best, most = old, score
		}
	}
	return best, false
}

// fileChanges names the files of the step that have changed since the step of old read
// them.
func (e *Entry) fileChanges(ctx context.Context, old *note) []string {
	data, err := e.book.store.Record(filesKind, old.Key)
	if err != nil || len(e.files) == 0 {
		return nil
	}
	var was fileList
	if json.Unmarshal(data, &was) != nil {
		return nil
	}
	is, err := sumFiles(ctx, e.files)
	if err != nil {
		return nil
	}
	return was.changes(is)
}
