// Package inputs writes down what an image was made of, so that whoever has the build
// context can tell whether a build would make another one.
package inputs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/opencontainers/go-digest"
)

// Annotations of the manifest of an image.
const (
	// AnnotationDigest is the digest of everything that the image was made of:
	// the fingerprint, and the files of the build context that were read.
	AnnotationDigest = "com.github.bobbuild.inputs"
	// AnnotationReads says in JSON which files these were, since they depend on the
	// configuration of base images. With it, the digest can be computed from the
	// context without reading a base image.
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

// name returns a name that is unique to the read.
func (r *read) name() digest.Digest {
	return recipe.Key("read", append([]string{r.Path, r.Parents, recipe.Bool(r.Required)}, r.Exclude...)...)
}

// readNow is a read together with the content that was found.
type readNow struct {
	read
	content digest.Digest
}

// Reads are what a build has read of its context. The zero value is nothing. They may be
// used by several goroutines.
type Reads struct {
	mu    sync.Mutex
	found map[digest.Digest]readNow // by name
}

// Note remembers that src had the content d.
func (rs *Reads) Note(src filecopy.Source, d digest.Digest) {
	r := readNow{read{Path: src.Path, Parents: src.Parents, Required: src.Required, Exclude: src.Exclude}, d}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.found == nil {
		rs.found = make(map[digest.Digest]readNow)
	}
	rs.found[r.name()] = r
}

// Annotations returns the annotations for the manifest of an image with this
// fingerprint. It returns nil if the fingerprint is empty.
func (rs *Reads) Annotations(fingerprint digest.Digest) (map[string]string, error) {
	if fingerprint == "" {
		return nil, nil
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	found := slices.SortedFunc(maps.Values(rs.found), func(a, b readNow) int { return cmp.Compare(a.name(), b.name()) })
	reads := make([]read, len(found))
	for i, r := range found {
		reads[i] = r.read
	}
	text, err := json.Marshal(reads)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", AnnotationReads, err)
	}
	return map[string]string{AnnotationReads: string(text), AnnotationDigest: sum(fingerprint, found).String()}, nil
}

// sum returns the digest of all inputs. The order of found counts.
func sum(fingerprint digest.Digest, found []readNow) digest.Digest {
	values := []string{fingerprint.String()}
	for _, r := range found {
		values = append(values, r.name().String(), r.content.String())
	}
	return recipe.Key("inputs", values...)
}

// A Context is the build context: a directory of this machine.
type Context struct {
	Dir      string
	Ignore   []string // the patterns of .dockerignore, in their order
	LeaveOut string   // a directory to leave out, "" for no directory
}

// UpToDate reports whether the image whose manifest has these annotations was made of
// inputs with this fingerprint, and of the files that c has now. It reads exactly the
// files that the image's build read. It returns an error if it can't read one. An image
// without the annotations is never up to date.
func (c Context) UpToDate(ctx context.Context, fingerprint digest.Digest, annotations map[string]string) (_ bool, err error) {
	var reads []read
	if fingerprint == "" || json.Unmarshal([]byte(annotations[AnnotationReads]), &reads) != nil {
		return false, nil
	}
	found := make([]readNow, len(reads))
	if len(reads) > 0 {
		tree, err := filecopy.OpenDir(c.Dir, c.Ignore)
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		tree.LeaveOut(c.LeaveOut, nil)
		for i, r := range reads {
			content, err := contentNow(ctx, tree, r)
			if content == "" {
				return false, err
			}
			found[i] = readNow{r, content}
		}
	}
	return sum(fingerprint, found).String() == annotations[AnnotationDigest], nil
}

// contentNow returns the digest of the files that r selects, "" if there are no such
// files.
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
