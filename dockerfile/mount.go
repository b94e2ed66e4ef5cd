package dockerfile

// Mount is a --mount of a RUN. The set is closed: *BindMount, *CacheMount,
// *TmpfsMount, *SecretMount and *SSHMount. A Target is absolute and clean.
//
//sumtype:decl
type Mount interface {
	// Shown returns the files of another source that the mount shows, and false if it
	// shows no such files.
	Shown() (Shown, bool)
	mount()
}

// Shown are files that a mount shows on Target.
type Shown struct {
	From           From
	Source, Target string // absolute and clean paths
}

func (*BindMount) mount()   {}
func (*CacheMount) mount()  {}
func (*TmpfsMount) mount()  {}
func (*SecretMount) mount() {}
func (*SSHMount) mount()    {}

// Shown implements [Mount].
func (m *BindMount) Shown() (Shown, bool) { return Shown{m.From, m.Source, m.Target}, true }

// Shown implements [Mount].
func (m *CacheMount) Shown() (Shown, bool) {
	if m.From == nil || m.Emptied() {
		return Shown{}, false
	}
	return Shown{*m.From, m.Source, m.Target}, true
}

// Shown implements [Mount].
func (*TmpfsMount) Shown() (Shown, bool) { return Shown{}, false }

// Shown implements [Mount].
func (*SecretMount) Shown() (Shown, bool) { return Shown{}, false }

// Shown implements [Mount].
func (*SSHMount) Shown() (Shown, bool) { return Shown{}, false }

// BindMount shows files of From. What the command writes there is discarded.
type BindMount struct {
	From     From
	Source   string // absolute and clean path in From
	Target   string
	ReadOnly bool
}

// CacheMount is a directory that outlives the build and is no part of the image.
type CacheMount struct {
	ID       string // BUILDKIT_CACHE_MOUNT_NS, "/" and the id written, by default the target as written but clean
	Target   string
	From     *From  // what a new cache begins with; nil is an empty directory
	Source   string // absolute and clean path in From
	Sharing  string // "shared", "private" or "locked"
	ReadOnly bool
	Owner    *MountOwner // of a new directory; nil is 0:0 and 0755, or as in From
}

// Emptied reports whether the cache begins with an empty directory although it has a
// From. As in BuildKit, it does when an owner or a mode is given but no source.
func (m *CacheMount) Emptied() bool { return m.Owner != nil && m.Source == "/" }

// TmpfsMount is an empty file system in memory.
type TmpfsMount struct {
	Target   string
	Size     int64 // limit in bytes; 0 means no limit
	ReadOnly bool
}

// SecretMount shows a secret as a file, in a variable, or both.
type SecretMount struct {
	ID       string
	Target   string // "" if the secret is in a variable only
	Env      string // name of the variable, "" if there is none
	Required bool   // a secret that wasn't given is an error
	Owner    MountOwner
}

// SSHMount shows the socket of an SSH agent.
type SSHMount struct {
	ID       string // "default" if none was named
	Target   string // "" lets whoever runs the step choose one
	Required bool   // an agent that wasn't given is an error
	Owner    MountOwner
}

// MountOwner is who a mounted file or directory belongs to.
type MountOwner struct {
	UID, GID uint32
	Mode     uint32 // permission bits
}
