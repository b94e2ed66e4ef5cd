package account

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
)

// An Account is who a process runs as, in the IDs of the image.
type Account struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// User resolves a USER by the image's own /etc/passwd and /etc/group. The empty name is
// root. A number need not be in the files. As in Docker, the primary group is also a
// supplementary group. Otherwise a process could leave the group by changing its
// primary group, and gain what the group is denied.
func User(root, name string) (*Account, error) {
	passwd, group, closeFiles, err := accounts(root)
	if err != nil {
		return nil, err
	}
	defer closeFiles()
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return nil, fmt.Errorf("user %q: %w", name, err)
	}
	id := &Account{UID: uint32(u.Uid), GID: uint32(u.Gid), Home: u.Home}
	for _, g := range append([]int{u.Gid}, u.Sgids...) {
		if !slices.Contains(id.Groups, uint32(g)) {
			id.Groups = append(id.Groups, uint32(g))
		}
	}
	return id, nil
}

// ID returns the ID that part of an owner stands for without being looked
// up: a number, or root, which BuildKit takes for 0 whatever the image says.
func ID(part string) (uint32, bool) {
	if part == "root" {
		return 0, true
	}
	n, err := strconv.ParseUint(part, 10, 32)
	return uint32(n), err == nil
}

// Owner resolves "user[:group]", the value of --chown, by the image's own files.
// Without a group the group is the user's own, or has the number of the user. A name
// that the image doesn't know stands for ID 0, as in BuildKit, and is returned in
// unknown for a warning.
func Owner(root, spec string) (owner *filecopy.Owner, unknown []string, err error) {
	passwd, group, closeFiles, err := accounts(root)
	if err != nil {
		return nil, nil, err
	}
	defer closeFiles()
	owner = &filecopy.Owner{}
	name, groupName, _ := strings.Cut(spec, ":")
	if id, ok := ID(name); ok {
		owner.UID, owner.GID = id, id
	} else if name != "" {
		u, err := user.ParsePasswdFilter(passwd, func(u user.User) bool { return u.Name == name })
		if err != nil {
			return nil, nil, fmt.Errorf("/etc/passwd: %w", err)
		}
		if len(u) > 0 {
			owner.UID, owner.GID = uint32(u[0].Uid), uint32(u[0].Gid)
		} else {
			unknown = append(unknown, "user "+name)
		}
	}
	if id, ok := ID(groupName); ok {
		owner.GID = id
	} else if groupName != "" {
		g, err := user.ParseGroupFilter(group, func(g user.Group) bool { return g.Name == groupName })
		if err != nil {
			return nil, nil, fmt.Errorf("/etc/group: %w", err)
		}
		if len(g) > 0 {
			owner.GID = uint32(g[0].Gid)
		} else {
			unknown = append(unknown, "group "+groupName)
		}
	}
	return owner, unknown, nil
}

// Files are where an image keeps its users and groups.
var Files = [...]string{"/etc/passwd", "/etc/group"}

// accounts opens the image's account files; one that is missing reads as empty.
// Both are resolved inside root by the kernel, since an image may hold links
// that point anywhere.
func accounts(root string) (passwd, group io.Reader, closeFiles func(), err error) {
	var open []*os.File
	closeFiles = func() {
		for _, f := range open {
			_ = f.Close()
		}
	}
	var readers [2]io.Reader
	for i, name := range Files {
		f, err := OpenRegular(root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			readers[i] = strings.NewReader("")
		case err != nil:
			closeFiles()
			return nil, nil, nil, err
		default:
			open = append(open, f)
			readers[i] = f
		}
	}
	return readers[0], readers[1], closeFiles, nil
}

// OpenRegular opens the regular file of an image called name for reading. The caller
// closes it.
func OpenRegular(root, name string) (*os.File, error) {
	handle, err := filecopy.OpenInRoot(root, name)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	fi, err := handle.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s in the image is no regular file", name)
	}
	return pathrs.Reopen(handle, os.O_RDONLY)
}
