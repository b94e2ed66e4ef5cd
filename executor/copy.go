package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// aliasKind are records that lead from what a COPY --from names to the content
// it selects, so that a known result needs no file of the source.
const aliasKind = "alias"

// A copying is one COPY or ADD: what is copied, opened only when needed.
type copying struct {
	*dockerfile.Copy
	paths  []string // of the source
	files  []*dockerfile.Inline
	open   func(context.Context) (*source, error) // nil: only inline files
	unpack bool
	warn   func(string)

	selection *filecopy.Selection
}

// copyOperation prepares COPY and ADD. Their key holds the content that is
// copied and not where it came from: a stage that is built anew but turns out
// the same changes nothing behind it.
func (b *build) copyOperation(ctx context.Context, st *state, op *dockerfile.Copy, s *dockerfile.Stage) (*operation, error) {
	c := &copying{Copy: op, warn: b.progress.warn}
	for _, src := range op.Sources {
		switch src := src.(type) {
		case *dockerfile.Path:
			c.paths = append(c.paths, src.Name)
			c.unpack = src.Unpack
		case *dockerfile.Inline:
			c.files = append(c.files, src)
		default:
			return nil, fmt.Errorf("a source of type %T is not supported yet", src)
		}
	}
	shape := c.shape(st.key)
	var alias digest.Digest
	switch {
	case op.From.Stage != nil || op.From.Image != "":
		from, err := b.copyFrom(ctx, op.From, s)
		if err != nil {
			return nil, err
		}
		c.open = func(ctx context.Context) (*source, error) { return b.view(ctx, from.rootfs).wait(ctx) }
		alias = newKey("copy from").str(shape.String()).str(from.key.String()).sum()
		if key, ok := b.alias(alias); ok {
			return b.copyAs(key, c), nil
		}
	case len(c.paths) > 0:
		c.open = b.openContext
	}
	content, err := c.digest(ctx)
	if err != nil {
		return nil, err
	}
	key := newKey("copy content").str(shape.String()).str(content.String()).sum()
	if alias != "" {
		if err := b.Store.PutRecord(aliasKind, alias, []byte(key)); err != nil {
			return nil, err
		}
	}
	return b.copyAs(key, c), nil
}

// shape is the key of everything about a copy but the content selected.
func (c *copying) shape(parent digest.Digest) digest.Digest {
	k := newKey("copy").str(parent.String()).list(c.paths).str(c.Dest).str(c.Chown).str(c.Chmod).bool(c.unpack).
		bool(c.From != dockerfile.From{})
	for _, f := range c.files {
		k = k.str(f.Name).str(string(f.Content))
	}
	return k.sum()
}

// copyFrom returns the state that --from names.
func (b *build) copyFrom(ctx context.Context, from dockerfile.From, s *dockerfile.Stage) (*state, error) {
	if from.Stage != nil {
		return b.stage(ctx, from.Stage).wait(ctx)
	}
	img, err := b.image(ctx, from.Image, s.Platform).wait(ctx)
	if err != nil {
		return nil, err
	}
	return img.state, nil
}

// alias returns the key recorded under a, if its result is there as well.
func (b *build) alias(a digest.Digest) (digest.Digest, bool) {
	data, err := b.Store.Record(aliasKind, a)
	if err != nil {
		return "", false
	}
	key, err := digest.Parse(string(data))
	if err != nil {
		return "", false
	}
	return key, b.lookup(key) != nil
}

// openContext opens the build context, once for the build.
func (b *build) openContext(ctx context.Context) (*source, error) {
	return once(b, b.contexts, b.opts.Context, func() (*source, error) {
		if b.opts.Context == "" {
			return nil, errors.New("there is no build context: name a directory as the last argument of bob build")
		}
		return b.openTree(b.opts.Context, b.opts.Ignore)
	}).wait(ctx)
}

// unpackArchives is what ADD does with a file that turns out to be an archive.
var unpackArchives = &filecopy.Unpack{
	IsArchive: snapshot.IsArchive,
	Extract: func(ctx context.Context, root, dir string, r io.Reader) error {
		return snapshot.Extract(ctx, root, dir, r, snapshot.ExtractOptions{})
	},
}

func (b *build) copyAs(key digest.Digest, c *copying) *operation {
	return &operation{key: key, run: c.run}
}

// load selects the files that are copied.
func (c *copying) load(ctx context.Context) error {
	if c.selection != nil || c.open == nil {
		return nil
	}
	src, err := c.open(ctx)
	if err != nil {
		return err
	}
	if c.selection, err = src.tree.Select(ctx, c.paths); err != nil {
		return err
	}
	for _, name := range c.selection.Sockets() {
		c.warn(fmt.Sprintf("%s: a socket can't be copied and is left out", name))
	}
	for _, pattern := range c.selection.Empty() {
		c.warn(fmt.Sprintf("%s: no file matches", pattern))
	}
	return nil
}

// digest returns the digest of the content that is copied.
func (c *copying) digest(ctx context.Context) (digest.Digest, error) {
	if err := c.load(ctx); err != nil {
		return "", err
	}
	switch {
	case c.selection == nil:
		return "", nil
	case c.keepsOwners():
		return c.selection.DigestWithOwners(ctx)
	default:
		return c.selection.Digest(ctx)
	}
}

// keepsOwners reports whether what is copied keeps its owners: that of a stage
// or an image does, while that of the context belongs to root.
func (c *copying) keepsOwners() bool { return c.From != (dockerfile.From{}) && c.Chown == "" }

// run copies into the file system below root.
func (c *copying) run(ctx context.Context, root string, v *vertex) error {
	if err := c.load(ctx); err != nil {
		return err
	}
	o, err := c.options(root, v)
	if err != nil {
		return err
	}
	if c.selection != nil {
		if err := c.selection.CopyTo(ctx, root, c.Dest, o); err != nil {
			return err
		}
	}
	for _, f := range c.files {
		if err := filecopy.WriteFile(ctx, root, c.Dest, f.Name, f.Content, o); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) options(root string, v *vertex) (filecopy.Options, error) {
	o := filecopy.Options{DirDest: len(c.Sources) > 1}
	if !c.keepsOwners() {
		owner, err := v.owner(root, c.Chown)
		if err != nil {
			return o, fmt.Errorf("--chown=%s: %w", c.Chown, err)
		}
		o.Owner = owner
	}
	if c.Chmod != "" {
		mode, err := strconv.ParseUint(c.Chmod, 8, 32)
		if err != nil {
			return o, fmt.Errorf("--chmod=%s: %w", c.Chmod, err)
		}
		m := uint32(mode)
		o.Mode = &m
	}
	if c.unpack {
		o.Unpack = unpackArchives
	}
	return o, nil
}
