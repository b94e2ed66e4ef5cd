package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// idRange is how many subordinate IDs a user gets: enough for 0..65535.
const idRange = 65536

// A User is who bob and its rivals run as.
type User struct {
	Name     string
	UID, GID uint32
	Ranges   bool // has ranges in /etc/subuid and /etc/subgid, and newuidmap is there
	switched bool // commands change to this user
}

// Unprivileged returns the user called name when the caller is root, created
// with ranges if it doesn't exist; otherwise the caller.
func Unprivileged(ctx context.Context, name string) (*User, error) {
	if os.Geteuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("look up the current user: %w", err)
		}
		return newUser(me, false)
	}
	unlock, err := lock(filepath.Join(os.TempDir(), "bob-test-user.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := user.Lookup(name)
	if unknown := user.UnknownUserError(""); errors.As(err, &unknown) {
		if err = sh(ctx, "useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", name); err != nil {
			return nil, err
		}
		found, err = user.Lookup(name)
	}
	if err != nil {
		return nil, fmt.Errorf("look up user %s: %w", name, err)
	}
	for file, flag := range map[string]string{"/etc/subuid": "--add-subuids", "/etc/subgid": "--add-subgids"} {
		if err := addRange(ctx, name, file, flag); err != nil {
			return nil, err
		}
	}
	return newUser(found, true)
}

func newUser(found *user.User, switched bool) (*User, error) {
	uid, err := strconv.ParseUint(found.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read uid of %s: %w", found.Username, err)
	}
	gid, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("read gid of %s: %w", found.Username, err)
	}
	u := &User{Name: found.Username, UID: uint32(uid), GID: uint32(gid), switched: switched}
	_, uidErr := exec.LookPath("newuidmap")
	_, sub := ranges("/etc/subuid", u.Name)
	_, subg := ranges("/etc/subgid", u.Name)
	u.Ranges = uidErr == nil && sub && subg
	return u, nil
}

// ranges returns the first ID above all ranges of file, and whether name has one.
func ranges(file, name string) (next uint64, has bool) {
	next = 100000
	f, err := os.Open(file)
	if err != nil {
		return next, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 3 {
			continue
		}
		start, err1 := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		next = max(next, start+count)
		has = has || fields[0] == name && count >= idRange
	}
	return next, has
}

func addRange(ctx context.Context, name, file, flag string) error {
	next, has := ranges(file, name)
	if has {
		return nil
	}
	return sh(ctx, "usermod", flag, fmt.Sprintf("%d-%d", next, next+idRange-1), name)
}

// Command prepares a command that runs as u in dir, with env and a PATH and
// nothing else of the caller's environment. Cancelling ctx kills it.
func (u *User) Command(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8", "USER=" + u.Name, "LOGNAME=" + u.Name,
	}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if u.switched {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID}
	}
	return cmd
}

// Own gives the trees below paths to u, links themselves and not their targets.
func (u *User) Own(paths ...string) error {
	if !u.switched {
		return nil
	}
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			if err := os.Lchown(path, int(u.UID), int(u.GID)); err != nil {
				return err
			}
			if info.Mode()&fs.ModeSymlink != 0 {
				return nil
			}
			// chown clears setuid and setgid.
			return os.Chmod(path, info.Mode())
		})
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", root, u.Name, err)
		}
	}
	return nil
}

// Mkdir makes a directory that u owns, parents included.
func (u *User) Mkdir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return u.Own(path)
}

// sh runs a command of the harness itself; its output becomes the error.
func sh(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// lock takes an exclusive lock on path against other processes, and waits for it.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
