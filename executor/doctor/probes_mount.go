package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// noAccess are the mount flags of file systems that hold no programs.
const noAccess = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

// tmpfs makes a directory for this probe and mounts an empty tmpfs there. It goes
// with the namespace.
func (o *probeOrder) tmpfs(name string) (string, error) {
	dir, err := o.dir(name)
	if err != nil {
		return "", err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return "", &os.PathError{Op: "mount tmpfs on", Path: dir, Err: err}
	}
	return dir, nil
}

func tryMounts(o *probeOrder) outcome {
	dir, err := o.tmpfs("tmpfs")
	if err != nil {
		return refusal(obstacle.OfMounts())
	}
	// The flags that the mount has been given outside can't be taken away here.
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return refusal(obstacle.OfMounts())
	}
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return refusal(obstacle.OfMounts())
	}
	return yes("")
}

// overlayAt mounts an overlay in dir as builds do, over a lower directory with a
// file "gone" and a directory "new", which holds another.
func overlayAt(dir string) error {
	for _, name := range []string{"lower/new", "upper", "work", "merged"} {
		if err := os.MkdirAll(dir+"/"+name, 0o755); err != nil { //nolint:gosec // as in an image
			return err
		}
	}
	for _, name := range []string{"lower/gone", "lower/new/old"} {
		if err := os.WriteFile(dir+"/"+name, nil, 0o644); err != nil { //nolint:gosec // as in an image
			return err
		}
	}
	// Characters in its name may mean something in options.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Mount("overlay", dir+"/merged", "overlay", 0,
		fmt.Sprintf("userxattr,volatile,lowerdir=/proc/self/fd/%[1]d/lower,upperdir=/proc/self/fd/%[1]d/upper,workdir=/proc/self/fd/%[1]d/work", fd))
}

// TryFuseOverlay is [TryOverlay] of fuse-overlayfs. It remembers nothing.
func TryFuseOverlay(dir string) *obstacle.Obstacle {
	return inScratch(dir, func(scratch string) *obstacle.Obstacle {
		defer func() { _ = unix.Unmount(scratch, unix.MNT_DETACH) }()
		return fuseIn(scratch)
	})
}

// inScratch calls f with a new directory in dir, which it removes.
func inScratch(dir string, f func(scratch string) *obstacle.Obstacle) *obstacle.Obstacle {
	s, err := newScratch(dir, ".try-")
	if err != nil {
		return obstacle.New("nothing can be written to the cache directory: "+err.Error(), otherPlace)
	}
	defer s.remove()
	return f(s.path)
}

func tryOverlay(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	if found := overlayIn(dir); found != nil {
		return refusal(found)
	}
	return yes("")
}

// overlayIn mounts an overlay in an empty directory and does with it what builds do.
func overlayIn(dir string) *obstacle.Obstacle {
	if err := overlayAt(dir); err != nil {
		return overlayRefused(dir, err)
	}
	// What a later step finds there is what a layer is made of.
	if err := os.Remove(dir + "/merged/gone"); err != nil {
		return obstacle.New("an overlay doesn't let files of lower layers be removed: "+err.Error(), otherDisk)
	}
	if err := os.RemoveAll(dir + "/merged/new"); err != nil {
		return obstacle.New("an overlay doesn't let directories of lower layers be removed: "+err.Error(), otherDisk)
	}
	if err := os.Mkdir(dir+"/merged/new", 0o755); err != nil { //nolint:gosec // as in an image
		return obstacle.New("an overlay doesn't let directories of lower layers be replaced: "+err.Error(), otherDisk)
	}
	if names, err := os.ReadDir(dir + "/merged/new"); err != nil || len(names) > 0 {
		return obstacle.New("a replaced directory of an overlay shows what was removed", otherDisk)
	}
	return nil
}

// overlayRefused says why no overlay can be mounted in dir.
func overlayRefused(dir string, err error) *obstacle.Obstacle {
	where := fileSystem(dir)
	if _, statErr := os.Stat("/sys/module/overlay"); statErr != nil && !kernelKnows("overlay") {
		return obstacle.New("the kernel has no overlay file system, or can't load it here: "+err.Error(), "as root of the machine, run\n  modprobe overlay")
	}
	switch where {
	case "overlay", "nfs", "fuse":
		return obstacle.New("the cache directory is on "+where+", which can't carry an overlay: "+err.Error(), otherDisk)
	}
	if err == unix.EPERM { //nolint:errorlint // mount's own
		return obstacle.OfMounts()
	}
	return obstacle.New("the file system of the cache directory carries no overlay with userxattr (Linux 5.11): "+err.Error(), otherDisk)
}

// fileSystem names the file system of dir if it is one that overlays have trouble
// with.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return ""
	}
	return map[int64]string{
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse",
	}[int64(st.Type)] //nolint:unconvert // 32 bits wide on some architectures
}

// kernelKnows reports whether a type of file system is there.
func kernelKnows(kind string) bool {
	known, err := os.ReadFile("/proc/filesystems")
	return err != nil || strings.Contains(string(known), "\t"+kind+"\n")
}

// tryNestedOverlay mounts an overlay inside of an overlay: a cache in the root file
// system of a RUN, or of most containers, is that.
func tryNestedOverlay(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	if err := overlayAt(dir); err != nil {
		return refusal(overlayRefused(dir, err))
	}
	if err := overlayAt(dir + "/merged"); err != nil {
		return no("an overlay can't have its upper directory on another, so bob in a RUN of bob, or in most containers, needs a volume for its cache: "+err.Error(),
			"RUN --mount=type=tmpfs,target=/cache … --cache-dir /cache")
	}
	return yes("")
}

func tryProc(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	if err := unix.Mount("proc", dir, "proc", noAccess, ""); err != nil {
		return no("RUN gets the /proc of outside, in which it sees the processes of others: "+masked("/proc", err),
			"docker or podman run with --security-opt systempaths=unconfined or unmask=/proc/*; in Kubernetes\n  hostUsers: false\n  containers:\n  - securityContext:\n      procMount: Unmasked")
	}
	return yes("")
}

func trySys(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	if err := unix.Mount("sysfs", dir, "sysfs", noAccess|unix.MS_RDONLY, ""); err != nil {
		return no("RUN gets the /sys of outside, read-only: "+masked("/sys", err), "")
	}
	return yes("")
}

// masked says why the kernel refuses a second file system like that at dir: parts of
// it are hidden by other mounts.
func masked(dir string, err error) string {
	mounts, errRead := os.ReadFile("/proc/self/mountinfo")
	if errRead != nil {
		return err.Error()
	}
	var over []string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			over = append(over, fields[4])
		}
	}
	const shown = 3
	if len(over) > shown {
		over = append(over[:shown], "…")
	}
	if len(over) == 0 {
		return err.Error()
	}
	return err.Error() + ", since " + strings.Join(over, ", ") + " are mounted over it"
}

func tryPivotRoot(o *probeOrder) outcome {
	dir, err := o.tmpfs("")
	if err != nil {
		return refusal(obstacle.OfMounts())
	}
	if err := os.Chdir(dir); err != nil {
		return no(err.Error(), "")
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return no("RUN's root is moved over / and chrooted into instead: pivot_root: "+err.Error(), "")
	}
	return yes("")
}

func tryMountAPI(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	const effect = "images of more than about 200 layers can't be built: "
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return no(effect+"open_tree: "+err.Error(), obstacle.WithoutFilters)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return no(effect+"move_mount: "+err.Error(), obstacle.WithoutFilters)
	}
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return no(effect+"fsopen: "+err.Error(), obstacle.WithoutFilters)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return no(effect+"fsconfig: "+err.Error(), obstacle.WithoutFilters)
	}
	if _, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return no(effect+"fsmount: "+err.Error(), obstacle.WithoutFilters)
	}
	return yes("")
}

func tryFuse(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	if found := fuseIn(dir); found != nil {
		return refusal(found)
	}
	return yes("")
}

// fuseIn mounts a file system of FUSE on a directory.
func fuseIn(dir string) *obstacle.Obstacle {
	const fix = "have the container started with the device: with docker or podman\n  --device /dev/fuse"
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return obstacle.New("/dev/fuse can't be used: "+err.Error(), fix)
	}
	defer func() { _ = f.Close() }()
	options := "fd=" + strconv.Itoa(int(f.Fd())) + ",rootmode=40000,user_id=0,group_id=0"
	if err := unix.Mount("bob", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return obstacle.New("file systems of FUSE can't be mounted: "+err.Error(), "")
	}
	if _, err := exec.LookPath("fuse-overlayfs"); err != nil {
		return obstacle.New("fuse-overlayfs isn't installed", "install it with `apt-get install fuse-overlayfs` (Debian, Ubuntu) or `dnf install fuse-overlayfs` (Fedora, RHEL)")
	}
	return nil
}
