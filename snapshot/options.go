package snapshot

import "github.com/bobbuild/bob/snapshot/owners"

// Options say how a store makes file systems of what it keeps. The zero value is
// overlayfs and owners as they are on the disk.
type Options struct {
	// Snapshotter is what makes one file system of a snapshot and those below it.
	Snapshotter Snapshotter
	// RecordOwners has owners, set-ID bits, devices and file capabilities recorded
	// beside files in place of given to them: this process has one user and one
	// group ID only.
	RecordOwners bool
	// MaxUnpacked is what a layer may unpack to, in bytes; 0 has no bound. The budget of
	// package bounded tells what counts.
	MaxUnpacked int64
	// HarmlessDevices has all devices recorded that not every container has: commands
	// could open them.
	HarmlessDevices bool
}

// owners returns how files below the roots of the store have owners.
func (o Options) owners() owners.Keeper {
	switch {
	case o.RecordOwners:
		return owners.Records
	case o.Snapshotter == FuseOverlay:
		return owners.Stubs
	case o.HarmlessDevices:
		return owners.Harmless
	}
	return owners.Devices
}

// A Snapshotter is a way to make one file system of a snapshot and those below it.
type Snapshotter string

// The snapshotters.
const (
	Overlay     Snapshotter = "overlay"        // the kernel's; "" means this one
	FuseOverlay Snapshotter = "fuse-overlayfs" // the program of that name
	Copy        Snapshotter = "copy"           // a copy of all files, for which nothing is mounted
	// Index makes none: image layers are known by their tars' entries, nothing is
	// unpacked unless it is read, and an active snapshot has of those below it what
	// [Active.Reveal] was asked for. No command can run there. It wants RecordOwners.
	Index Snapshotter = "index"
)
