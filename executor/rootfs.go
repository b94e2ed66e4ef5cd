package executor

import (
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
)

// A rootfs is the file system after a step.
type rootfs struct {
	*source.RootFS

	layer *importedLayer // that makes it, over another one; nil for what isn't imported
}

// present is the rootfs that snap holds.
func present(snap *snapshot.Snapshot) *rootfs { return &rootfs{RootFS: source.Present(snap)} }

// emptyRootFS is that of a stage without layers.
func emptyRootFS() *rootfs { return &rootfs{RootFS: new(source.RootFS)} }
