package executor

import (
	"context"
	"fmt"
	"io"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/account"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/opencontainers/go-digest"
)

// A copying is one COPY or ADD: its sources, each copied as if by an instruction
// of its own.
type copying struct {
	*dockerfile.Copy

	from   *origin // of paths; nil without paths
	parts  []part
	warn   func(string)
	owners owners.Keeper // of what is copied to
	// maxUnpacked is what an archive may have unpacked, in bytes; 0 is no limit.
	maxUnpacked int64
}

// A part is one source of a copying. What it stands for is opened only when
// needed.
type part interface {
	// shape adds to r everything about the part, except content that must be read
	// first.
	shape(r *recipe.Recipe)
	// content adds the content that must be read, if there is any.
	content(ctx context.Context, r *recipe.Recipe) error
	// unread adds, in place of the content, that it wasn't read.
	unread(r *recipe.Recipe)
	// copyTo copies the part.
	copyTo(ctx context.Context, to *snapshot.Active, v *event.Vertex) error
}

// A pathPart is a path in the build context, a stage, an image or a named
// context.
type pathPart struct {
	*dockerfile.Path

	copying   *copying
	selection *filecopy.Selection
}

func (p *pathPart) shape(r *recipe.Recipe) {
	r.Add("source "+p.Name, p.Parents, recipe.Bool(p.Unpack))
}

func (p *pathPart) unread(r *recipe.Recipe) { r.Unread(p.Name) }

// load selects the files that are copied.
func (p *pathPart) load(ctx context.Context) error {
	if p.selection != nil {
		return nil
	}
	src, err := p.copying.from.open(ctx)
	if err != nil {
		return err
	}
	if p.selection, err = src.Select(ctx, p.source()); err != nil {
		return err
	}
	for _, name := range p.selection.Sockets() {
		p.copying.warn(fmt.Sprintf("%s: a socket can't be copied and is left out", name))
	}
	if p.selection.Sources() == 0 {
		p.copying.warn(fmt.Sprintf("%s: no file matches", p.Name))
	}
	return nil
}

func (p *pathPart) source() filecopy.Source {
	return filecopy.Source{Path: p.Name, Parents: p.Parents, Required: p.Required, Exclude: p.copying.Exclude}
}

// keepsOwners reports whether what is copied keeps its owners.
func (p *pathPart) keepsOwners() bool { return p.copying.from.owners && p.copying.Chown == "" }

func (p *pathPart) content(ctx context.Context, r *recipe.Recipe) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	read := p.selection.Digest
	if p.keepsOwners() {
		read = p.selection.DigestWithOwners
	}
	content, err := read(ctx)
	if err != nil {
		return err
	}
	if note := p.copying.from.noteRead; note != nil {
		note(p.source(), content)
	}
	r.Source(p.Name, content)
	return nil
}

func (p *pathPart) copyTo(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
	if err := p.load(ctx); err != nil {
		return err
	}
	o, err := p.copying.options(ctx, to, v, p.keepsOwners(), p.Unpack)
	if err != nil {
		return err
	}
	return p.selection.CopyTo(ctx, to.Root(), p.copying.Dest, o)
}

// An inlinePart is a heredoc.
type inlinePart struct {
	*dockerfile.Inline

	copying *copying
}

func (p *inlinePart) shape(r *recipe.Recipe) { r.Add("heredoc "+p.Name, string(p.Content)) }

func (p *inlinePart) content(context.Context, *recipe.Recipe) error { return nil }

func (p *inlinePart) unread(*recipe.Recipe) {}

func (p *inlinePart) copyTo(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
	o, err := p.copying.options(ctx, to, v, false, false)
	if err != nil {
		return err
	}
	return filecopy.WriteFile(ctx, to.Root(), p.copying.Dest, p.Name, p.Content, o)
}

// A fetchedPart is a file or a tree that came from elsewhere: all of it.
type fetchedPart struct {
	copying *copying
	name    string        // for explanations
	key     digest.Digest // of the files
	open    func(context.Context) (*source.Tree, error)
	pattern string // of what is copied
	itself  bool   // it is a directory that is copied itself: see filecopy.Source
	unpack  bool
}

func (p *fetchedPart) shape(r *recipe.Recipe) {
	r.Hidden(p.pattern, recipe.Bool(p.itself), recipe.Bool(p.unpack))
	r.Source(p.name, p.key)
}

func (p *fetchedPart) content(context.Context, *recipe.Recipe) error { return nil }

func (p *fetchedPart) unread(*recipe.Recipe) {}

func (p *fetchedPart) copyTo(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
	src, err := p.open(ctx)
	if err != nil {
		return err
	}
	selection, err := src.Select(ctx, filecopy.Source{Path: p.pattern, Itself: p.itself, Exclude: p.copying.Exclude})
	if err != nil {
		return err
	}
	o, err := p.copying.options(ctx, to, v, false, p.unpack)
	if err != nil {
		return err
	}
	return selection.CopyTo(ctx, to.Root(), p.copying.Dest, o)
}

// unpackArchives is what ADD does with a file that turns out to be an archive. If an
// owner is given, everything in the archive gets it.
func (c *copying) unpackArchives(owner *filecopy.Owner, to *snapshot.Active) *filecopy.Unpack {
	o := snapshot.ExtractOptions{Owners: c.owners, In: to, MaxSize: c.maxUnpacked}
	if owner != nil {
		o.Owner = &snapshot.Owner{UID: int(owner.UID), GID: int(owner.GID)}
	}
	return &filecopy.Unpack{
		IsArchive: snapshot.IsArchive,
		Extract: func(ctx context.Context, root, dir string, r io.Reader) error {
			return snapshot.Extract(ctx, root, dir, r, o)
		},
	}
}

// options returns the options of the copy. Files keep their owners only if keepOwners
// is set, as for a stage or an image; files of the context belong to root.
func (c *copying) options(ctx context.Context, to *snapshot.Active, v *event.Vertex, keepOwners, unpack bool) (filecopy.Options, error) {
	o := filecopy.Options{Owners: c.owners, Reveal: to.Reveal()}
	if !keepOwners {
		owner, err := ownerIn(ctx, to, v, c.Chown)
		if err != nil {
			return o, fmt.Errorf("--chown=%s: %w", c.Chown, err)
		}
		o.Owner = owner
	}
	if c.Chmod != "" {
		var err error
		if o.Mode, err = filecopy.ParseChmod(c.Chmod); err != nil {
			return o, fmt.Errorf("--chmod: %w", err)
		}
	}
	if unpack {
		var owner *filecopy.Owner
		if c.Chown != "" {
			owner = o.Owner
		}
		o.Unpack = c.unpackArchives(owner, to)
	}
	return o, nil
}

// ownerIn calls [account.Owner] on the files of in, and warns about a name that the
// image doesn't know.
func ownerIn(ctx context.Context, in *snapshot.Active, v *event.Vertex, spec string) (*filecopy.Owner, error) {
	for _, name := range account.Files {
		if err := in.ShowFile(ctx, name); err != nil {
			return nil, err
		}
	}
	owner, unknown, err := account.Owner(in.Root(), spec)
	for _, u := range unknown {
		v.Warn(fmt.Sprintf("%s: not in the image's account files; 0 is taken", u))
	}
	return owner, err
}
