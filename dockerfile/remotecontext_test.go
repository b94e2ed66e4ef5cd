package dockerfile_test

import (
	"reflect"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
)

// TestRemoteContext: what is a repository, also without .git at its end, and that
// the reference asked for is kept as it stands, those of pull requests too.
func TestRemoteContext(t *testing.T) {
	t.Parallel()
	repository := func(remote, ref, subdir string) dockerfile.Source {
		return &dockerfile.Repository{Remote: remote, Ref: ref, Subdir: subdir}
	}
	download := func(url string) dockerfile.Source {
		return &dockerfile.Download{URL: url, Name: dockerfile.ContextFileName}
	}
	for address, want := range map[string]dockerfile.Source{
		"https://github.com/o/r.git#refs/pull/7/head":              repository("https://github.com/o/r.git", "refs/pull/7/head", ""),
		"https://example.com/r.git?ref=refs/pull/7/merge&subdir=d": repository("https://example.com/r.git", "refs/pull/7/merge", "d"),
		"https://example.com/o/r.git#v1:a/b":                       repository("https://example.com/o/r.git", "v1", "a/b"),
		"github.com/o/r":                                           repository("https://github.com/o/r", "", ""),
		"github.com/o/r#pull/7/merge:sub":                          repository("https://github.com/o/r", "pull/7/merge", "sub"),
		"git://example.com/r#main":                                 repository("git://example.com/r", "main", ""),
		"git@example.com:o/r":                                      repository("git@example.com:o/r", "", ""),
		"ssh://git@example.com/o/r#refs/heads/x":                   repository("ssh://git@example.com/o/r", "refs/heads/x", ""),
		"https://example.com/o/r":                                  download("https://example.com/o/r"),
		"http://example.com/context.tar.gz":                        download("http://example.com/context.tar.gz"),
		"r.git":                                                    nil,
		"./github.com/o/r":                                         nil,
		"example.com/o/r.git":                                      nil,
	} {
		got, err := dockerfile.RemoteContext(address)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v; want %+v", address, got, err, want)
		}
	}
}
