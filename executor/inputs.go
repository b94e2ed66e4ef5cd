package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/opencontainers/go-digest"
)

// Annotations of the manifest of an image that was built with
// [Options.Fingerprint].
const (
	// AnnotationInputs is the digest of everything that the image was made of:
	// the fingerprint, and the files of the build context that were read.
	AnnotationInputs = "com.github.bobbuild.inputs"
	// AnnotationReads says in JSON which files those were, since that depends
	// on the configuration of base images. With it whoever has the context can
	// compute the digest without asking for any base image.
	AnnotationReads = "com.github.bobbuild.reads"
)

// A read is one selection of files of the build context: a source of COPY or
// ADD, or of a bind mount.
type read struct {
	Path     string   `json:"path"`
	Parents  string   `json:"parents,omitempty"`
	Required bool     `json:"required,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
}

func (r *read) source() filecopy.Source {
	return filecopy.Source{Path: r.Path, Parents: r.Parents, Required: r.Required, Exclude: r.Exclude}
}

// name is different for each read.
func (r *read) name() digest.Digest {
	return recipe.Key("read", append([]string{r.Path, r.Parents, recipe.Bool(r.Required)}, r.Exclude...)...)
}

// readNow is a read together with the content that was found.
type readNow struct {
	read
	content digest.Digest
}

// noteRead remembers that src of the build context had the content d.
func (b *build) noteRead(src filecopy.Source, d digest.Digest) {
	r := readNow{read{Path: src.Path, Parents: src.Parents, Required: src.Required, Exclude: src.Exclude}, d}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads[r.name()] = r
}

// inputs returns the annotations that say what the image was made of; none
// without a fingerprint.
func (b *build) inputs() (map[string]string, error) {
	if b.opts.Fingerprint == "" {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found := make([]readNow, 0, len(b.reads))
	for _, r := range b.reads {
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b readNow) int { return cmp.Compare(a.name(), b.name()) })
	reads := make([]read, len(found))
	for i, r := range found {
		reads[i] = r.read
	}
	text, err := json.Marshal(reads)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", AnnotationReads, err)
	}
	return map[string]string{AnnotationReads: string(text), AnnotationInputs: sumInputs(b.opts.Fingerprint, found).String()}, nil
}

// sumInputs returns the digest of all inputs. The order of found counts.
func sumInputs(fingerprint digest.Digest, found []readNow) digest.Digest {
	values := []string{fingerprint.String()}
	for _, r := range found {
		values = append(values, r.name().String(), r.content.String())
	}
	return recipe.Key("inputs", values...)
}

// UpToDate reports whether the image whose manifest has these annotations is
// what a build with o would make: whether o.Fingerprint and the files of
// o.Context that the image's own build read are the same. Base images and other
// things at an address count as the fingerprint names them; whether they have
// changed is not asked. An image without the annotations is never up to date.
// Files are read that the image's build read, and no other. An error is one of
// reading them.
func (o *Options) UpToDate(ctx context.Context, annotations map[string]string) (_ bool, err error) {
	var reads []read
	if o.Fingerprint == "" || json.Unmarshal([]byte(annotations[AnnotationReads]), &reads) != nil {
		return false, nil
	}
	found := make([]readNow, len(reads))
	if len(reads) > 0 {
		tree, err := filecopy.OpenDir(o.Context, o.Ignore)
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		tree.LeaveOut(o.LeaveOut, nil)
		for i, r := range reads {
			content, err := contentNow(ctx, tree, r)
			if content == "" {
				return false, err
			}
			found[i] = readNow{r, content}
		}
	}
	return sumInputs(o.Fingerprint, found).String() == annotations[AnnotationInputs], nil
}

// contentNow returns the digest of what r selects, "" if it isn't there.
func contentNow(ctx context.Context, tree *filecopy.Tree, r read) (digest.Digest, error) {
	selection, err := tree.Select(ctx, r.source())
	if _, missing := errors.AsType[*filecopy.NotFoundError](err); missing {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return selection.Digest(ctx)
}
