package layertar

import (
	"context"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/owners"
)

// Options tell Extract what not to take from the archive, and how to set the rest.
type Options struct {
	NoChown bool   // files belong to the process, not to whom the archive says
	Owner   *Owner // files belong to this one, not to whom the archive says
	Owners  owners.Keeper
	// LeaveOut is told of each device that the kernel doesn't let this process make,
	// by its path in the tree. If it is nil such a device is an error.
	LeaveOut func(path string)
	// In is what shows through the tree, nil if all is there.
	In Underlay
	// Budget is what the archive may unpack to.
	Budget *bounded.Budget
}

// An Underlay is what a tree has to be shown of before it is looked at.
type Underlay interface {
	// Show has the entry base of the directory at the path dir be there, if there is one.
	Show(dir, base string) error
	// CopyUp is Show of what gets another name: a file comes with all that it has.
	CopyUp(ctx context.Context, dir, base string) error
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }
