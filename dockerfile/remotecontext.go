package dockerfile

import (
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
)

// ContextFileName is the name of the file in a context that is the URL of one file.
const ContextFileName = "context"

// RemoteContext returns the source that the address of a build context names. It is a
// *Repository for the git references of docker build, which include
// github.com/OWNER/REPOSITORY, and a *Download for any other http or https URL. It is
// nil for anything else, such as a directory of this machine.
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
