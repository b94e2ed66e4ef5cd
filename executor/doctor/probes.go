package doctor

import (
	"golang.org/x/sys/unix"
)

// probes returns all probes in the order in which people read them.
func probes() []probe {
	return []probe{
		{name: "user-namespaces", what: "user namespaces", need: Optional, try: tryUserNamespace},
		{name: "id-ranges", what: "newuidmap, newgidmap and ranges of IDs", need: Optional, try: tryRanges},
		{name: entering, what: "entering bob's namespaces", need: Optional, entered: true, try: tryMode},
		{name: "mounts", what: "mounts", need: ForRUN, entered: true, try: tryMounts},
		{name: "cache-directory", what: "the cache directory", need: ForAll, try: tryDirectory},
		{name: "space", what: "free space and inodes", need: ForAll, try: trySpace},
		{name: "xattrs", what: "extended attributes in the cache directory", need: ForAll, entered: true, anywhere: true, try: tryXattrs},
		{name: "overlay", what: "overlays in the cache directory", need: Optional, entered: true, try: tryOverlay},
		{name: running, what: "RUN", need: ForRUN, entered: true, anywhere: true, try: tryRun},
		{name: "proc", what: "a /proc of its own for RUN", need: Optional, entered: true, namespaces: unix.CLONE_NEWPID | unix.CLONE_NEWNS, try: tryProc},
		{name: "sys", what: "a /sys of its own for RUN", need: Optional, entered: true, namespaces: unix.CLONE_NEWNET | unix.CLONE_NEWNS, try: trySys},
		{name: "pivot-root", what: "pivot_root", need: Optional, entered: true, try: tryPivotRoot},
		{name: "mount-api", what: "the new mount calls", need: Optional, entered: true, try: tryMountAPI},
		{name: "seccomp", what: "seccomp filters", need: ForRUN, entered: true, try: trySeccomp},
		{name: "landlock", what: "abstract sockets kept from RUN", need: Optional, entered: true, anywhere: true, try: tryScopes},
		{name: notifying, what: "seccomp notification", need: Optional, entered: true, try: tryNotify},
		{name: "network-namespace", what: "RUN --network=none", need: Optional, entered: true, namespaces: unix.CLONE_NEWNET, try: tryNetwork},
		{name: "private-network", what: "RUN --network=private", need: Optional, entered: true, try: tryPrivate},
		{name: "overlay-on-overlay", what: "overlays on overlays", need: Optional, entered: true, try: tryNestedOverlay},
		{name: "fuse", what: "/dev/fuse and fuse-overlayfs", need: Optional, entered: true, try: tryFuse},
		{name: emulating, what: "foreign architectures", need: Optional, entered: true, anywhere: true, try: tryEmulators},
		{name: "cgroup", what: "a cgroup to limit RUN with", need: Optional, entered: true, try: tryCgroup},
	}
}
