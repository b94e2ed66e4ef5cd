package dockerfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	mode "github.com/tonistiigi/dchapes-mode"
)

// copySpec is a COPY or ADD.
type copySpec struct {
	instructions.SourcesAndDest

	add                    bool
	chown, chmod, checksum string
	exclude                []string
	keepGitDir, unpack     *bool // as given, nil otherwise
	linkGiven, parents     bool
}

// copySpecOf returns what a COPY or ADD says, false for other instructions.
func copySpecOf(in instructions.Command) (copySpec, bool) {
	switch c := in.(type) {
	case *instructions.CopyCommand:
		return copySpec{
			SourcesAndDest: c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod, exclude: c.ExcludePatterns,
			linkGiven: c.Link, parents: c.Parents,
		}, true
	case *instructions.AddCommand:
		return copySpec{
			SourcesAndDest: c.SourcesAndDest, add: true, chown: c.Chown, chmod: c.Chmod, checksum: c.Checksum,
			exclude: c.ExcludePatterns, keepGitDir: c.KeepGitDir, unpack: c.Unpack, linkGiven: c.Link,
		}, true
	}
	return copySpec{}, false
}

// copyOp makes the operation of a COPY or ADD at p, and its history entry. sources has
// what its --from names.
func copyOp(in instructions.Command, sources []From, p paths.Place) (Op, string, error) {
	spec, _ := copySpecOf(in)
	var from From
	if len(sources) > 0 {
		from = sources[0]
	}
	op, err := spec.lower(from, p)
	if err != nil {
		return nil, "", err
	}
	op.Exclude = slices.Clone(op.Exclude)
	return op, spec.createdBy(), nil
}

// known returns the parts of the instruction that are the same before and after
// the variables in it are expanded.
func (c copySpec) known() copySpec {
	var sources []string
	for _, src := range c.SourcePaths {
		if expand.Constant(src) {
			sources = append(sources, src)
		}
	}
	if len(sources) != len(c.SourcePaths) || !expand.Constant(c.checksum) {
		c.checksum = ""
	}
	if !expand.Constant(c.chown) {
		c.chown = ""
	}
	if !expand.Constant(c.chmod) {
		c.chmod = ""
	}
	c.SourcePaths = sources
	return c
}

// local returns the sources that are files and not addresses.
func (c copySpec) local() []string {
	return slices.DeleteFunc(slices.Clone(c.SourcePaths), func(src string) bool { return isDownload(src) || isRepository(src) })
}

func (c copySpec) name() string {
	if c.add {
		return "ADD"
	}
	return "COPY"
}

// lower makes the operation. Paths among the sources are looked up in from, the
// destination at p.
func (c copySpec) lower(from From, p paths.Place) (*Copy, error) {
	if err := checkChown(c.chown, c.linkGiven); err != nil {
		return nil, err
	}
	if err := checkChmod(c.chmod); err != nil {
		return nil, err
	}
	if err := c.checkChecksum(); err != nil {
		return nil, err
	}
	dest, err := p.Destination(c.DestPath)
	if err != nil {
		return nil, fmt.Errorf("%s: destination %s: %w", c.name(), c.DestPath, err)
	}
	op := &Copy{
		From: from, Dest: dest, Chown: c.chown, Chmod: c.chmod, Exclude: c.exclude,
		Link: c.linkGiven && c.chmod == "",
	}
	remote := remoteOptions{checksum: c.checksum, keepGitDir: c.keepGitDir}
	for _, src := range c.SourcePaths {
		source, err := remote.source(src)
		if err == nil && source == nil {
			source, err = c.path(src, p)
		}
		switch _, local := source.(*Path); {
		case err != nil:
			return nil, fmt.Errorf("%s %s: %w", c.name(), src, err)
		case !local && !c.add:
			return nil, errCopyRemote(source)
		}
		if download, ok := source.(*Download); ok && c.unpack != nil {
			download.Unpack = *c.unpack
		}
		op.Sources = append(op.Sources, source)
	}
	for _, f := range c.SourceContents {
		name, err := p.Source(f.Path)
		if err != nil {
			return nil, fmt.Errorf("%s heredoc: %w", c.name(), err)
		}
		name = strings.TrimPrefix(name, "/")
		if err := paths.CheckName(name); err != nil {
			return nil, fmt.Errorf("%s heredoc: %w", c.name(), err)
		}
		op.Sources = append(op.Sources, &Inline{Name: name, Content: []byte(f.Data)})
	}
	return op, nil
}

func errCopyRemote(source Source) error {
	if _, ok := source.(*Download); ok {
		return errors.New("source can't be a URL for COPY: use ADD")
	}
	return errors.New("source can't be a git ref for COPY: use ADD")
}

// path makes the source that src names in the context, a stage or an image.
func (c copySpec) path(src string, p paths.Place) (*Path, error) {
	unpack := c.add
	if c.unpack != nil {
		unpack = *c.unpack
	}
	if !c.parents {
		src, err := p.Source(src)
		return &Path{Name: paths.Relative(src), Unpack: unpack}, err
	}
	top, pattern, pivot := strings.Cut(src, "/./")
	if !pivot {
		top, pattern = "/", src
	}
	top, err := p.Source(top)
	if err != nil {
		return nil, err
	}
	if pattern, err = p.Source(pattern); err != nil {
		return nil, err
	}
	return &Path{
		Name: paths.Relative(top), Parents: paths.Relative(pattern), Unpack: unpack,
		Required: !hasWildcard(top) && !hasWildcard(pattern),
	}, nil
}

func hasWildcard(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// createdBy returns the history entry of the instruction.
func (c copySpec) createdBy() string {
	var b strings.Builder
	b.WriteString(c.name())
	if c.parents {
		b.WriteString(" --parents")
	}
	if c.chown != "" {
		b.WriteString(" --chown=" + c.chown)
	}
	if c.chmod != "" {
		b.WriteString(" --chmod=" + c.chmod)
	}
	for _, src := range c.SourcePaths {
		b.WriteString(" " + src)
	}
	for _, f := range c.SourceContents {
		b.WriteString(" <<" + f.Path)
	}
	b.WriteString(" " + c.DestPath + " # buildkit")
	return b.String()
}

// checkChown refuses names with --link: they would have to be looked up in the
// files below, of which a linked copy is independent.
func checkChown(chown string, link bool) error {
	if chown == "" || !link {
		return nil
	}
	user, group, _ := strings.Cut(chown, ":")
	if isID(user) && (group == "" || isID(group)) {
		return nil
	}
	return fmt.Errorf("--chown=%s: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead", chown)
}

// isID tells whether a user or group needs no lookup.
func isID(s string) bool {
	_, err := strconv.ParseInt(s, 10, 32)
	return err == nil || s == "root"
}

// checkChmod accepts octal numbers and the symbolic modes of chmod(1).
func checkChmod(chmod string) error {
	if chmod == "" {
		return nil
	}
	invalid := fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", chmod)
	if bits, err := strconv.ParseUint(chmod, 8, 32); err == nil {
		if bits > 0o7777 {
			return invalid
		}
		return nil
	}
	_, err := mode.Parse(chmod)
	if _, ok := errors.AsType[*strconv.NumError](err); ok {
		return invalid // it begins like a number
	}
	if err != nil {
		return fmt.Errorf("--chmod=%s: %w", chmod, err)
	}
	return nil
}

// checkChecksum refuses --checksum where there is nothing to check.
func (c copySpec) checkChecksum() error {
	switch {
	case c.checksum == "":
		return nil
	case len(c.SourcePaths) != 1:
		return errors.New("checksum can't be specified for multiple sources")
	case !isDownload(c.SourcePaths[0]) && !isRepository(c.SourcePaths[0]):
		return errors.New("checksum requires HTTP(S) or Git sources")
	}
	return nil
}
