package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
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
func (all mountSources) basis() basis {
	worst := settled
	for _, m := range all {
		if m != nil {
			worst = max(worst, m.basis)
		}
	}
	return worst
}

// mountSources finds out what the mounts of op, which comes after st, select. A source that is missing is
// an error here, before the command runs.
func (b *build) mountSources(ctx context.Context, st *state, op *dockerfile.Run, s *dockerfile.Stage) (mountSources, error) {
	found := make(mountSources, len(op.Mounts))
	for i, m := range op.Mounts {
		var err error
		switch m := m.(type) {
		case *dockerfile.BindMount:
			if found[i], err = b.mountSource(ctx, st, m.From, m.Source, s); err != nil {
				return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
			}
		case *dockerfile.CacheMount:
			if m.From == nil || emptied(m) {
				continue
			}
			if found[i], err = b.mountSource(ctx, st, *m.From, m.Source, s); err != nil {
				return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
			}
		case *dockerfile.TmpfsMount, *dockerfile.SecretMount, *dockerfile.SSHMount: // select nothing
		}
	}
	return found, nil
}

// mountSource finds source in from.
func (b *build) mountSource(ctx context.Context, st *state, from dockerfile.From, source string, s *dockerfile.Stage) (*mountSource, error) {
	o, err := b.origin(ctx, st, from, s)
	if err != nil {
		return nil, err
	}
	if o.rootfs == nil {
		return b.copiedSource(ctx, o, source)
	}
	m := &mountSource{source: source, basis: o.basis, snapshot: o.rootfs.Snapshot}
	if source == "/" {
		// Hashing a whole root file system would cost more than it saves:
		// its key stands for its content.
		m.content = o.key
		return m, nil
	}
	record := newKey("mounted").str(o.key.String()).str(source).sum()
	if !b.opts.NoCache && o.basis != anew {
		for m.content = range b.linkedTo(ctx, mountedKind, record) {
			b.noteLink(record, m.content)
			return m, nil
		}
	}
	if st.basis == forecast {
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
	b.noteLink(record, m.content)
	return m, b.Store.PutRecord(mountedKind, record, []byte(m.content))
}

// copiedSource finds source in a directory of this machine. What it selects, and
// only that, is copied into a snapshot once for each content: a command never
// sees the directory itself, nor anything that .dockerignore leaves out.
func (b *build) copiedSource(ctx context.Context, o *origin, source string) (*mountSource, error) {
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
		if id, err := b.Store.Record(contextKind, content); err == nil {
			if snap, err := b.Store.Snapshot(string(id)); err == nil {
				return snap, nil
			}
		}
		snap, err := b.execute(ctx, nil, &operation{run: func(ctx context.Context, to *snapshot.Active, _ *event.Vertex) error {
			return selection.CopyTo(ctx, to.Root(), "/mount", filecopy.Options{Owner: &filecopy.Owner{}, Owners: b.Store.Owners()})
		}}, nil)
		if err != nil {
			return nil, err
		}
		return snap, b.Store.PutRecord(contextKind, content, []byte(snap.ID()))
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

// mountKey adds to a key what the mounts of op have to do with the result, as
// in BuildKit: never what a cache mount, a secret or an agent holds.
func mountKey(k keyHash, op *dockerfile.Run, found mountSources) (keyHash, error) {
	k = k.number(int64(len(op.Mounts)))
	for i, m := range op.Mounts {
		content := ""
		if found[i] != nil {
			content = found[i].content.String()
		}
		switch m := m.(type) {
		case *dockerfile.BindMount:
			k = k.str("bind").str(content).str(m.Target).bool(m.ReadOnly)
		case *dockerfile.CacheMount:
			// The ID is part of the key only if none was written.
			_, id, _ := strings.Cut(m.ID, "/")
			plain := m.Sharing == "shared" && (m.ID == m.Target || id == m.Target)
			k = k.str("cache").str(content).str(m.Target).bool(m.ReadOnly).bool(plain).bool(emptied(m))
			if emptied(m) {
				k = k.owner(*m.Owner)
			}
		case *dockerfile.TmpfsMount:
			k = k.str("tmpfs").str(m.Target).bool(m.ReadOnly).number(m.Size)
		case *dockerfile.SecretMount:
			k = k.str("secret").str(m.ID).str(m.Target).str(m.Env).bool(m.Required).owner(m.Owner)
		case *dockerfile.SSHMount:
			k = k.str("ssh").str(m.ID).str(m.Target).bool(m.Required).owner(m.Owner)
		default:
			return k, fmt.Errorf("no mount %T", m)
		}
	}
	return k, nil
}

// emptied reports whether BuildKit begins a cache mount with a directory of its
// own in place of what From has: it does when an owner or a mode is given and no
// source.
func emptied(m *dockerfile.CacheMount) bool { return m.Owner != nil && m.Source == "/" }

// A mounting is the mounts of one running command.
type mounting struct {
	*build
	op      *dockerfile.Run
	process *sandbox.Process
	vertex  *event.Vertex
	dir     string // private, for sockets and sources
	agents  int
	undo    []func() error // in reverse
	caches  map[digest.Digest]*snapshot.CacheMount
}

// mount gives the process the mounts of op. The caller calls close when it has
// ended, also after an error.
func (b *build) mount(ctx context.Context, p *sandbox.Process, op *dockerfile.Run, found mountSources, v *event.Vertex) (*mounting, error) {
	m := &mounting{build: b, op: op, process: p, vertex: v, caches: make(map[digest.Digest]*snapshot.CacheMount)}
	if len(op.Mounts) == 0 {
		return m, nil
	}
	var err error
	if m.dir, err = os.MkdirTemp(b.Store.TempDir(), "mounts-"); err != nil {
		return m, err
	}
	m.undo = append(m.undo, func() error { return os.RemoveAll(m.dir) })
	if err := m.holdCaches(ctx, found); err != nil {
		return m, err
	}
	for i, spec := range op.Mounts {
		if err := m.add(ctx, spec, found[i]); err != nil {
			return m, err
		}
	}
	// Parents are mounted first, whatever the order in which they are written.
	slices.SortStableFunc(p.Mounts, func(a, b sandbox.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return m, nil
}

// close ends all that the mounts need.
func (m *mounting) close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (m *mounting) add(ctx context.Context, spec dockerfile.Mount, from *mountSource) error {
	switch spec := spec.(type) {
	case *dockerfile.BindMount:
		root, err := m.files(ctx, from, spec.ReadOnly)
		if err != nil {
			return fmt.Errorf("mount on %s: %w", spec.Target, err)
		}
		return m.bind(root, from.source, spec.Target, spec.ReadOnly)
	case *dockerfile.CacheMount:
		source := spec.Source
		if from != nil || emptied(spec) {
			source = "/" // was copied
		}
		return m.bind(m.caches[cacheKey(spec, from)].Root(), source, spec.Target, spec.ReadOnly)
	case *dockerfile.TmpfsMount:
		m.process.Mounts = append(m.process.Mounts, sandbox.Mount{
			Kind: sandbox.Tmpfs, Target: spec.Target, Size: spec.Size, ReadOnly: spec.ReadOnly,
		})
		return nil
	case *dockerfile.SecretMount:
		return m.secret(ctx, spec)
	case *dockerfile.SSHMount:
		return m.agent(ctx, spec)
	default:
		return fmt.Errorf("no mount %T", spec)
	}
}

// files mounts the files of an origin for this command: those that may be
// written as a copy that is discarded.
func (m *mounting) files(ctx context.Context, from *mountSource, readOnly bool) (string, error) {
	snap, err := from.snapshot(ctx)
	if err != nil {
		return "", err
	}
	if readOnly {
		v, err := m.Store.View(ctx, snap)
		if err != nil {
			return "", err
		}
		m.undo = append(m.undo, v.Close)
		return v.Root(), nil
	}
	a, err := m.Store.Prepare(ctx, snap)
	if err != nil {
		return "", err
	}
	m.undo = append(m.undo, a.Discard)
	return a.Root(), nil
}

// bind has source, resolved inside root, shown at target. It is
// bound by its descriptor: another command may change a cache mount meanwhile.
func (m *mounting) bind(root, source, target string, readOnly bool) error {
	if source != "/" {
		handle, err := filecopy.OpenInRoot(root, source)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mount on %s: %w", target, &filecopy.NotFoundError{Source: source})
		}
		if err != nil {
			return fmt.Errorf("mount on %s: source %s: %w", target, source, err)
		}
		m.undo = append(m.undo, handle.Close)
		place := filepath.Join(m.dir, fmt.Sprint(len(m.process.Mounts)))
		if err := makePlace(handle, place); err != nil {
			return err
		}
		root = fmt.Sprintf("/proc/self/fd/%d", handle.Fd())
		err = unix.Mount(root, place, "", unix.MS_BIND, "")
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			// So it is where commands run in a chroot, which takes the descriptor.
		case err != nil:
			return fmt.Errorf("mount on %s: %w", target, &os.PathError{Op: "bind", Path: source, Err: err})
		default:
			m.undo = append(m.undo, func() error { return unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) })
			root = place
		}
	}
	m.process.Mounts = append(m.process.Mounts, sandbox.Mount{Source: root, Target: target, ReadOnly: readOnly})
	return nil
}

// makePlace makes an empty file or directory, as the handle is one.
func makePlace(handle *os.File, place string) error {
	info, err := handle.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.Mkdir(place, 0o700)
	}
	return os.WriteFile(place, nil, 0o600)
}

// cacheKey names a cache. As in BuildKit one with the same ID that begins with
// something else is another cache. The name has a version of its own: what commands
// keep there is good whatever else has another version.
func cacheKey(m *dockerfile.CacheMount, from *mountSource) digest.Digest {
	k := keyUnder("bob.key.v2", "cache mount").str(m.ID)
	if emptied(m) {
		k = k.str(fmt.Sprintf("{%d %d %d}", m.Owner.UID, m.Owner.GID, m.Owner.Mode))
	} else {
		k = k.str("")
	}
	if from != nil {
		// Only what the source selects is copied, where BuildKit keeps all of
		// From under one ID.
		k = k.str(from.content.String()).str(m.Source)
	}
	return k.sum()
}

// sharings are the kinds of sharing as [dockerfile.CacheMount] names them; the zero
// value is that of "shared".
var sharings = map[string]snapshot.Sharing{"private": snapshot.Private, "locked": snapshot.Locked}

// holdCaches opens the cache mounts, each once for the command, in an order that
// all commands have: two that want the same ones can't wait for each other.
func (m *mounting) holdCaches(ctx context.Context, found mountSources) error {
	type wanted struct {
		key  digest.Digest
		spec *dockerfile.CacheMount
		from *mountSource
	}
	var caches []wanted
	for i, spec := range m.op.Mounts {
		if spec, ok := spec.(*dockerfile.CacheMount); ok {
			caches = append(caches, wanted{cacheKey(spec, found[i]), spec, found[i]})
		}
	}
	slices.SortStableFunc(caches, func(a, b wanted) int { return cmp.Compare(a.key, b.key) })
	for _, w := range caches {
		if m.caches[w.key] != nil {
			continue
		}
		waiting := func() {
			_, _ = fmt.Fprintf(m.vertex.Log(2), "waiting for the cache mount on %s, which another build uses\n", w.spec.Target)
		}
		c, err := m.Store.CacheMount(ctx, w.key, sharings[w.spec.Sharing], waiting, func(dir string) error {
			if from := m.importedMount(ctx, w.key); from != nil {
				err := m.unpackMount(ctx, dir, from)
				if err == nil || ctx.Err() != nil {
					return err
				}
				m.progress.Warn(fmt.Sprintf("cache mount %s: %v; it begins anew", from.ID, err))
			}
			return m.fillCache(ctx, dir, w.spec, w.from)
		})
		if err != nil {
			return fmt.Errorf("mount on %s: %w", w.spec.Target, err)
		}
		m.undo = append(m.undo, c.Close)
		m.caches[w.key] = c
	}
	return nil
}

// likeSource gives the directory dir the owner and mode of the one at source,
// resolved inside root, of which it holds the contents.
func likeSource(dir, root, source string, keeper owners.Keeper) error {
	handle, err := filecopy.OpenInRoot(root, source)
	if err != nil {
		return err
	}
	defer handle.Close()
	var st unix.Stat_t
	if err := keeper.Fstat(int(handle.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	return give(dir, dockerfile.MountOwner{UID: st.Uid, GID: st.Gid, Mode: st.Mode}, keeper)
}

// give gives the file or directory name, which is no link, an owner and a mode.
func give(name string, owner dockerfile.MountOwner, keeper owners.Keeper) error {
	if err := keeper.Fchownat(unix.AT_FDCWD, name, int(owner.UID), int(owner.GID)); err != nil {
		return &os.PathError{Op: "chown", Path: name, Err: err}
	}
	if err := keeper.Fchmodat(unix.AT_FDCWD, name, owner.Mode); err != nil {
		return &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// fillCache makes what a new cache begins with at the path.
func (m *mounting) fillCache(ctx context.Context, dir string, spec *dockerfile.CacheMount, from *mountSource) error {
	if from != nil {
		root, err := m.files(ctx, from, true)
		if err != nil {
			return err
		}
		src, err := filecopy.OpenDir(root, nil)
		if err != nil {
			return err
		}
		defer src.Close()
		src.Keep(m.Store.Owners())
		selection, err := selectOne(ctx, src, from.source, false)
		if err != nil {
			return err
		}
		if err := selection.CopyTo(ctx, filepath.Dir(dir), "/"+filepath.Base(dir), filecopy.Options{Owners: m.Store.Owners()}); err != nil {
			return err
		}
		return likeSource(dir, root, from.source, m.Store.Owners())
	}
	owner := dockerfile.MountOwner{Mode: 0o755}
	if emptied(spec) {
		owner = *spec.Owner
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return give(dir, owner, m.Store.Owners())
}
