package dockerfile

import (
	"errors"
	"net/url"
	"path"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/opencontainers/go-digest"
)

// remoteOptions are what the flags of an ADD say of its remote sources. What
// the reference of a git repository says is kept for the sources behind it, as
// BuildKit does.
type remoteOptions struct {
	checksum   string
	keepGitDir *bool
}

// source returns the repository or file that src names, nil if it is a path.
func (r *remoteOptions) source(src string) (Source, error) {
	ref, isGit, err := dfgitutil.ParseGitRef(src)
	switch {
	case err != nil && isGit:
		return nil, err
	case err == nil && !ref.IndistinguishableFromLocal:
		return r.repository(ref)
	case isDownload(src):
		return r.download(src)
	}
	return nil, nil // a path
}

func (r *remoteOptions) repository(ref *dfgitutil.GitRef) (Source, error) {
	if keep := ref.KeepGitDir; keep != nil {
		if r.keepGitDir != nil && *r.keepGitDir != *keep {
			return nil, errors.New("inconsistent keep-git-dir configuration: the flag and the reference differ")
		}
		r.keepGitDir = keep
	}
	if sum := ref.Checksum; sum != "" {
		if r.checksum != "" && r.checksum != sum {
			return nil, errors.New("checksum mismatch: " + r.checksum + " and " + sum)
		}
		r.checksum = sum
	}
	return &Repository{
		Remote: ref.Remote, Ref: ref.Ref, Checksum: r.checksum, Subdir: ref.SubDir,
		KeepGitDir:     r.keepGitDir != nil && *r.keepGitDir,
		SkipSubmodules: ref.Submodules != nil && !*ref.Submodules,
		FetchByCommit:  ref.FetchByCommit,
	}, nil
}

func (r *remoteOptions) download(src string) (Source, error) {
	d := &Download{URL: src, Name: "__unnamed__"}
	if u, err := url.Parse(src); err == nil {
		if base := path.Base(u.Path); base != "." && base != "/" {
			d.Name = base
		}
	}
	if err := paths.CheckName(d.Name); err != nil {
		return nil, err
	}
	if r.checksum != "" {
		var err error
		if d.Checksum, err = digest.Parse(r.checksum); err != nil {
			return nil, errors.New("checksum " + r.checksum + ": " + err.Error())
		}
	}
	return d, nil
}

// isDownload tells whether a source is fetched by HTTP, as a file.
func isDownload(src string) bool {
	return (strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://")) && !isRepository(src)
}

// isRepository tells whether a source has the form of a git reference.
func isRepository(src string) bool {
	ref, isGit, err := dfgitutil.ParseGitRef(src)
	return err == nil && ref != nil && isGit
}
