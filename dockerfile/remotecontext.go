package dockerfile

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
)

// ContextFileName is what a file is called that a context is the URL of.
const ContextFileName = "context"

// RemoteContext returns what a build context stands for that is no directory of
// this machine: a *Repository for the git references of docker build, with
// github.com/OWNER/REPOSITORY among them, a *Download for any other http or https
// URL, and nil for what is neither.
func RemoteContext(address string) (Source, error) {
	ref, isGit, err := dfgitutil.ParseGitRef(address)
	switch {
	case err != nil && isGit:
		return nil, err
	case err == nil:
		if ref.IndistinguishableFromLocal {
			ref.Remote = "https://" + ref.Remote
		}
		src, err := (&remoteOptions{}).repository(ref)
		if r, ok := src.(*Repository); ok {
			r.CommitTime = ref.MTime == "commit"
		}
		return src, err
	case strings.HasPrefix(address, "http://"), strings.HasPrefix(address, "https://"):
		return &Download{URL: address, Name: ContextFileName}, nil
	}
	return nil, nil
}
