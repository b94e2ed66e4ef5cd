package executor

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
)

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

// notebook opens the notes of earlier builds about s: about the stage of this name in a
// Dockerfile that is built with a directory as context.
func (b *build) notebook(s *dockerfile.Stage) *explain.Notebook {
	dir := b.opts.Context
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		dir = abs
	}
	if b.Store.Holds(dir) { // a temporary directory, new for each build
		dir = ""
	}
	name := cmp.Or(s.Name, fmt.Sprint(s.Index))
	below := ""
	switch {
	case s.Base.Stage != nil:
		below = "stage " + cmp.Or(s.Base.Stage.Name, fmt.Sprint(s.Base.Stage.Index))
	case s.Base.Reference != "":
		below = "base image " + s.Base.Reference
	case s.Base.Context != "":
		below = "context " + s.Base.Context
	}
	return explain.Open(b.Store, recipe.Key("place", s.Location.File, dir, b.plans.prefix(s), name), below)
}

// note makes the entry in the notebook for op, the operation of t, which comes after st.
func (b *build) note(st *state, t task, op *operation) *explain.Entry {
	s := explain.Step{Key: op.key, Text: t.Text, Parent: st.key, Inputs: op.inputs, Files: op.files}
	if t.stage.Base.Reference != "" {
		s.Base = st.from
	}
	switch {
	case b.opts.NoCache:
		s.Anew = "--no-cache"
	case t.stage.NoCache:
		s.Anew = "--no-cache-filter"
	case st.basis == anew:
		s.Anew = t.book.Below() + " was made anew"
	case op.basis == anew:
		s.Anew = "what it mounts was made anew"
	}
	return t.book.Begin(s)
}
