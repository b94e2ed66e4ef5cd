package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
)

// Kinds of records: the content that a mount's source selects in a stage or an
// image, and the snapshot that holds content of the build context.
const (
	mountedKind = "mounted-2"
	contextKind = "context-2"
)

// mountSources selects the files of the mounts of op. A missing source is an error
// here, before the command runs.
func (at site) mountSources(ctx context.Context, op *dockerfile.Run) (mountSources, error) {
	found := make(mountSources, len(op.Mounts))
	for i, m := range op.Mounts {
		shown, ok := m.Shown()
		if !ok {
			continue
		}
		var err error
		if found[i], err = at.mountSource(ctx, shown.From, shown.Source); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", shown.Target, err)
		}
	}
	return found, nil
}

// mountSource finds source in from.
func (at site) mountSource(ctx context.Context, from dockerfile.From, source string) (*mountSource, error) {
	o, err := at.find(ctx, from, at.stage)
	if err != nil {
		return nil, err
	}
	if o.rootfs == nil {
		return at.copiedSource(ctx, o, source)
	}
	m := &mountSource{Source: command.Source{Path: source, Snapshot: o.rootfs.Snapshot}, basis: o.basis}
	if source == "/" {
		// Hashing a whole root file system would cost more than it saves:
		// its key stands for its content.
		m.Content = o.key
		return m, nil
	}
	record := recipe.Key("mounted", o.key.String(), source)
	if !at.opts.NoCache && o.basis != anew {
		for m.Content = range at.caches.Linked(ctx, mountedKind, record) {
			at.caches.Link(record, m.Content)
			return m, nil
		}
	}
	if at.after.basis == forecast {
		return nil, errNoForecast
	}
	src, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	selection, err := command.Select(ctx, src.Tree, source, true) // the command sees the directory itself
	if err != nil {
		return nil, err
	}
	if m.Content, err = selection.DigestWithOwners(ctx); err != nil {
		return nil, err
	}
	m.basis = settled
	at.caches.Link(record, m.Content)
	return m, at.Store.PutRecord(mountedKind, record, []byte(m.Content))
}

// copiedSource finds source in a directory of this machine. Only the selected files are
// copied into a snapshot, once for each content. So a command never sees the directory
// itself, nor anything that .dockerignore leaves out.
func (at site) copiedSource(ctx context.Context, o *origin, source string) (*mountSource, error) {
	src, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	selection, err := command.Select(ctx, src.Tree, source, false)
	if err != nil {
		return nil, err
	}
	content, err := selection.Digest(ctx)
	if err != nil {
		return nil, err
	}
	if o.noteRead != nil {
		o.noteRead(command.Literal(source), content)
	}
	copied := func(ctx context.Context) (*snapshot.Snapshot, error) {
		if id, err := at.Store.Record(contextKind, content); err == nil {
			if snap, err := at.Store.Snapshot(string(id)); err == nil {
				return snap, nil
			}
		}
		snap, err := at.results.execute(ctx, nil, func(ctx context.Context, to *snapshot.Active) error {
			return selection.CopyTo(ctx, to.Root(), "/mount", filecopy.Options{Owner: &filecopy.Owner{}, Owners: at.Store.Owners()})
		})
		if err != nil {
			return nil, err
		}
		return snap, at.Store.PutRecord(contextKind, content, []byte(snap.ID()))
	}
	return &mountSource{Source: command.Source{Content: content, Path: "/mount", Snapshot: copied}, selection: selection}, nil
}
