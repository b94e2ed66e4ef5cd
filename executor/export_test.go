package executor

import (
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/sandbox"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MountKeyOf is the key of a recipe with nothing but mounts without contents.
func MountKeyOf(mounts ...dockerfile.Mount) (string, error) {
	r := recipe.New("test")
	err := addMounts(r, &dockerfile.Run{Mounts: mounts}, make(mountSources, len(mounts)))
	return r.Key().String(), err
}

// RunKeyOf is the key of a RUN for p with limits.
func RunKeyOf(p ocispec.Platform, limits ...sandbox.Ulimit) string {
	at := site{build: &build{opts: Options{Ulimits: limits}}, after: &state{}, stage: &dockerfile.Stage{Platform: p}}
	r, err := at.runRecipe(&dockerfile.Run{Args: []string{"true"}}, "host", nil)
	if err != nil {
		panic(err)
	}
	return r.Key().String()
}
