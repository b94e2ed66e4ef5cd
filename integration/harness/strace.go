package harness

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// counted are the system calls that are counted once each, by kind. What the
// scheduler of Go decides about is left out: threads, futexes, timers, memory.
var counted = kindsOf(map[Kind]string{
	Processes: "clone clone3 fork vfork",
	Execs:     "execve execveat",
	Opens:     "open openat openat2 creat",
	Stats:     "stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat",
	Attributes: "chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utimensat utimes futimesat " +
		"setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr",
	Changes: "mkdir mkdirat mknod mknodat link linkat symlink symlinkat rename renameat renameat2 unlink unlinkat rmdir",
	Mounts:  "mount umount2 pivot_root fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr",
	Syncs:   "fsync fdatasync syncfs sync sync_file_range msync",
})

// transfers are the system calls whose results are counted as bytes, with the kinds for
// the first and the second descriptor among their arguments.
var transfers = map[string][]Kind{
	"read": {Read}, "pread64": {Read}, "readv": {Read}, "preadv": {Read}, "preadv2": {Read},
	"write": {Written}, "pwrite64": {Written}, "writev": {Written}, "pwritev": {Written}, "pwritev2": {Written},
	"copy_file_range": {Read, Written}, "splice": {Read, Written}, "sendfile": {Written, Read},
}

func kindsOf(calls map[Kind]string) map[string]Kind {
	kinds := map[string]Kind{}
	for kind, names := range calls {
		for name := range strings.FieldsSeq(names) {
			kinds[name] = kind
		}
	}
	return kinds
}

// A Trace has the system calls of an invocation written down by strace(1).
type Trace struct {
	dir     string // gets a file for each thread
	user    string // who the traced program runs as
	program string
}

// NewTrace returns a trace that is written into dir, an empty directory. It returns a
// [MissingError] where nothing can be traced.
func (l *Lab) NewTrace(ctx context.Context, dir string) (*Trace, error) {
	if !l.User.switched {
		return nil, &MissingError{What: "the rights of root, without which strace takes newuidmap's from it"}
	}
	if err := Need("strace"); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("strace")
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(ctx, program, "--output=/dev/null", "true").CombinedOutput(); err != nil {
		return nil, &MissingError{What: fmt.Sprintf("the right to trace: %v: %s", err, out)}
	}
	return &Trace{dir: dir, user: l.User.Name, program: program}, nil
}

// wrap puts strace before a command. strace keeps the rights of the harness: if it ran
// as the user, set-ID programs such as newuidmap would start without their rights.
func (t *Trace) wrap(cmd *exec.Cmd) {
	args := slices.Concat([]string{t.program}, t.options(), []string{"--user=" + t.user, "--", cmd.Path})
	cmd.Path, cmd.Args = t.program, append(args, cmd.Args[1:]...)
	cmd.SysProcAttr.Credential = nil
}

// options returns what strace is called with, who is traced excluded.
func (t *Trace) options() []string {
	// The question mark lets strace pass over the calls that this architecture lacks.
	calls := slices.Sorted(maps.Keys(counted))
	calls = append(calls, slices.Sorted(maps.Keys(transfers))...)
	return []string{
		"--follow-forks", "--output-separately", "--output=" + filepath.Join(t.dir, "thread"),
		"--decode-fds=path", "--string-limit=0", "--columns=0", "--signal=none", "--quiet=all",
		"--trace=?" + strings.Join(calls, ",?"),
	}
}

var (
	callName   = regexp.MustCompile(`^[a-z0-9_]+`)
	callResult = regexp.MustCompile(`\) = (-?\d+)`)
	descriptor = regexp.MustCompile(`[(, ]\d+<([^>]*)>`)
)

// Counts counts the calls, once all that was traced has ended.
func (t *Trace) Counts() (Counts, error) {
	var counts Counts
	files, err := filepath.Glob(filepath.Join(t.dir, "thread.*"))
	if err != nil {
		return counts, err
	}
	if len(files) == 0 {
		return counts, fmt.Errorf("count system calls: strace wrote nothing into %s", t.dir)
	}
	for _, file := range files {
		if err := counts.add(file); err != nil {
			return counts, fmt.Errorf("count system calls: %w", err)
		}
	}
	return counts, nil
}

// add adds the calls of one thread.
func (c *Counts) add(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // a line holds the arguments of a program, or a path or two
	for lines.Scan() {
		c.call(lines.Text())
	}
	return lines.Err()
}

// call adds the call of a line.
func (c *Counts) call(line string) {
	name := callName.FindString(line)
	if kind, ok := counted[name]; ok && (kind != Processes || !strings.Contains(line, "CLONE_THREAD")) {
		c[kind]++
	}
	kinds, ok := transfers[name]
	if !ok {
		return
	}
	result := callResult.FindStringSubmatch(line)
	if result == nil {
		return
	}
	n, err := strconv.ParseInt(result[1], 10, 64)
	if err != nil || n < 0 {
		return
	}
	arguments := line[:strings.LastIndex(line, result[0])+1]
	for i, found := range descriptor.FindAllStringSubmatch(arguments, len(kinds)) {
		if isFile(found[1]) {
			c[Transfers]++
			c[kinds[i]] += n
		}
	}
}

// isFile says whether the name of a descriptor, as strace shows it, is the path of a
// file with contents of its own. It isn't for sockets, pipes, devices and the kernel's
// own file systems.
func isFile(name string) bool {
	if !strings.HasPrefix(name, "/") {
		return false
	}
	for _, kernel := range []string{"/proc/", "/sys/", "/dev/"} {
		if strings.HasPrefix(name, kernel) {
			return false
		}
	}
	return true
}
