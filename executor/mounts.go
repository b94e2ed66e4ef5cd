package executor

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/executor/recipe"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// Kinds of records: the content that a mount's source selects in a stage or an
// image, and the snapshot that holds content of the build context.
const (
	mountedKind = "mounted-2"
	contextKind = "context-2"
)

// A mountSource is where a bind mount or a new cache mount takes its files from.
type mountSource struct {
	content digest.Digest // of what the source selects
	source  string        // absolute and clean path in the snapshot
	basis   basis         // of content
	// selection is of a directory of this machine, else nil.
	selection *filecopy.Selection
	// snapshot makes the files present. It is nil for the empty file system.
	snapshot func(ctx context.Context) (*snapshot.Snapshot, error)
}

// mountSources are those of the mounts of a RUN, by their place in Run.Mounts; nil
// where there is none.
type mountSources []*mountSource

// basis is the worst of the sources'.
func (found mountSources) basis() basis {
	worst := settled
	for _, m := range found {
		if m != nil {
			worst = max(worst, m.basis)
		}
	}
	return worst
}

// mountSources finds out what the mounts of op select. A source that is missing is an
// error here, before the command runs.
func (at site) mountSources(ctx context.Context, op *dockerfile.Run) (mountSources, error) {
	found := make(mountSources, len(op.Mounts))
	for i, m := range op.Mounts {
		var err error
		switch m := m.(type) {
		case *dockerfile.BindMount:
			if found[i], err = at.mountSource(ctx, m.From, m.Source); err != nil {
				return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
			}
		case *dockerfile.CacheMount:
			if m.From == nil || emptied(m) {
				continue
			}
			if found[i], err = at.mountSource(ctx, *m.From, m.Source); err != nil {
				return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
			}
		case *dockerfile.TmpfsMount, *dockerfile.SecretMount, *dockerfile.SSHMount: // select nothing
		}
	}
	return found, nil
}

// mountSource finds source in from.
func (at site) mountSource(ctx context.Context, from dockerfile.From, source string) (*mountSource, error) {
	o, err := at.origin(ctx, from)
	if err != nil {
		return nil, err
	}
	if o.rootfs == nil {
		return at.copiedSource(ctx, o, source)
	}
	m := &mountSource{source: source, basis: o.basis, snapshot: o.rootfs.Snapshot}
	if source == "/" {
		// Hashing a whole root file system would cost more than it saves:
		// its key stands for its content.
		m.content = o.key
		return m, nil
	}
	record := recipe.Key("mounted", o.key.String(), source)
	if !at.opts.NoCache && o.basis != anew {
		for m.content = range at.linkedTo(ctx, mountedKind, record) {
			at.noteLink(record, m.content)
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
	selection, err := selectOne(ctx, src.Tree, source, true) // the command sees the directory
	if err != nil {
		return nil, err
	}
	if m.content, err = selection.DigestWithOwners(ctx); err != nil {
		return nil, err
	}
	m.basis = settled
	at.noteLink(record, m.content)
	return m, at.Store.PutRecord(mountedKind, record, []byte(m.content))
}

// copiedSource finds source in a directory of this machine. What it selects, and
// only that, is copied into a snapshot once for each content: a command never
// sees the directory itself, nor anything that .dockerignore leaves out.
func (at site) copiedSource(ctx context.Context, o *origin, source string) (*mountSource, error) {
	src, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	selection, err := selectOne(ctx, src.Tree, source, false)
	if err != nil {
		return nil, err
	}
	content, err := selection.Digest(ctx)
	if err != nil {
		return nil, err
	}
	if o.noteRead != nil {
		o.noteRead(mountedPath(source), content)
	}
	return &mountSource{content: content, selection: selection, source: "/mount", snapshot: func(ctx context.Context) (*snapshot.Snapshot, error) {
		if id, err := at.Store.Record(contextKind, content); err == nil {
			if snap, err := at.Store.Snapshot(string(id)); err == nil {
				return snap, nil
			}
		}
		snap, err := at.results.execute(ctx, nil, &operation{run: func(ctx context.Context, to *snapshot.Active, _ *event.Vertex) error {
			return selection.CopyTo(ctx, to.Root(), "/mount", filecopy.Options{Owner: &filecopy.Owner{}, Owners: at.Store.Owners()})
		}}, nil)
		if err != nil {
			return nil, err
		}
		return snap, at.Store.PutRecord(contextKind, content, []byte(snap.ID()))
	}}, nil
}

// selectOne selects what is at the path called name. With itself a directory counts
// besides its contents.
func selectOne(ctx context.Context, src *filecopy.Tree, name string, itself bool) (*filecopy.Selection, error) {
	of := mountedPath(name)
	of.Itself = itself
	selection, err := src.Select(ctx, of)
	if err == nil && selection.Sources() == 0 {
		err = &filecopy.NotFoundError{Source: name}
	}
	return selection, err
}

// mountedPath is the source that selects name, whose characters stand for
// themselves.
func mountedPath(name string) filecopy.Source {
	pattern := strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]", `\`, `[\\]`).Replace(name)
	return filecopy.Source{Path: strings.TrimPrefix(path.Join(".", pattern), "/")}
}

// addMounts adds to r what the mounts of op have to do with the result, as in BuildKit:
// never what a cache mount, a secret or an agent holds.
func addMounts(r *recipe.Recipe, op *dockerfile.Run, found mountSources) error {
	for i, m := range op.Mounts {
		values, err := mountValues(m)
		if err != nil {
			return err
		}
		n := strconv.Itoa(i + 1)
		r.Add("options of mount "+n, values...)
		if found[i] != nil {
			r.Source("mount "+n, found[i].content)
		}
	}
	return nil
}

// mountValues are all about m but the content of what it shows.
func mountValues(m dockerfile.Mount) ([]string, error) {
	switch m := m.(type) {
	case *dockerfile.BindMount:
		return []string{"bind", m.Target, recipe.Bool(m.ReadOnly)}, nil
	case *dockerfile.CacheMount:
		// The ID is part of the key only if none was written.
		plain := m.Sharing == "shared" && (m.ID == m.Target || mountID(m) == m.Target)
		values := []string{"cache", m.Target, recipe.Bool(m.ReadOnly), recipe.Bool(plain), recipe.Bool(emptied(m))}
		if emptied(m) {
			values = append(values, ownerValues(*m.Owner)...)
		}
		return values, nil
	case *dockerfile.TmpfsMount:
		return []string{"tmpfs", m.Target, recipe.Bool(m.ReadOnly), recipe.Number(m.Size)}, nil
	case *dockerfile.SecretMount:
		return append([]string{"secret", m.ID, m.Target, m.Env, recipe.Bool(m.Required)}, ownerValues(m.Owner)...), nil
	case *dockerfile.SSHMount:
		return append([]string{"ssh", m.ID, m.Target, recipe.Bool(m.Required)}, ownerValues(m.Owner)...), nil
	default:
		return nil, fmt.Errorf("no mount %T", m)
	}
}

func ownerValues(o dockerfile.MountOwner) []string {
	return []string{recipe.Number(o.UID), recipe.Number(o.GID), recipe.Number(o.Mode)}
}

// emptied reports whether BuildKit begins a cache mount with a directory of its
// own in place of what From has: it does when an owner or a mode is given and no
// source.
func emptied(m *dockerfile.CacheMount) bool { return m.Owner != nil && m.Source == "/" }

// cacheKey names a cache. As in BuildKit one with the same ID that begins with
// something else is another cache. The name has a version of its own: what commands
// keep there is good whatever else has another version.
func cacheKey(m *dockerfile.CacheMount, from *mountSource) digest.Digest {
	values := []string{m.ID, ""}
	if emptied(m) {
		values[1] = fmt.Sprintf("{%d %d %d}", m.Owner.UID, m.Owner.GID, m.Owner.Mode)
	}
	if from != nil {
		// Only what the source selects is copied, where BuildKit keeps all of
		// From under one ID.
		values = append(values, from.content.String(), m.Source)
	}
	return recipe.Lasting("bob.key.v2", "cache mount", values...)
}
