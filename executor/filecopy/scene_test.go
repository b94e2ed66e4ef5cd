package filecopy_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// A file is one name of a random tree.
type file struct {
	path   string
	kind   string // "file", "dir", "symlink", "link", "fifo" or "socket"
	target string // of a link, or content of a file
	mode   uint32
	uid    uint32
	sec    int64 // of its time, beyond 10^9
	attr   string
	cap    bool // it has a file capability
}

func (f *file) String() string {
	return fmt.Sprintf("%s %q %q %04o %d %d %s", f.kind, f.path, f.target, f.mode, f.uid, f.sec, f.attr)
}

// capability is cap_net_bind_service=ep.
const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// plant makes the files in dir, less those for which there is no place.
// Contexts belong to root.
func plant(tb testing.TB, dir string, files []*file, sockets, owners bool) {
	tb.Helper()
	must(tb, os.Mkdir(dir, 0o755))
	var made []*file
	for _, f := range files {
		p := filepath.Join(dir, f.path)
		if parent, err := os.Lstat(filepath.Dir(p)); err != nil || !parent.IsDir() {
			continue
		}
		var err error
		switch f.kind {
		case "file":
			var out *os.File
			if out, err = os.OpenFile(p, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
				_, err = out.WriteString(f.target)
				must(tb, errors.Join(err, out.Close()))
			}
		case "dir":
			err = os.Mkdir(p, 0o700)
		case "symlink":
			err = os.Symlink(f.target, p)
		case "link":
			if fi, e := os.Lstat(filepath.Join(dir, f.target)); e != nil || fi.IsDir() {
				continue
			}
			err = os.Link(filepath.Join(dir, f.target), p)
		case "fifo":
			err = unix.Mkfifo(p, 0o600)
		case "socket":
			err = unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
		}
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		must(tb, err)
		made = append(made, f)
	}
	for _, f := range slices.Backward(made) {
		p := filepath.Join(dir, f.path)
		if fi, err := os.Lstat(p); err == nil && fi.Mode().Type() == fs.ModeSocket && !sockets {
			must(tb, os.Remove(p))
		} else if f.kind != "link" {
			f.dress(tb, p, owners)
		}
	}
	(&file{mode: 0o755}).dress(tb, dir, true)
}

// dress gives the file at p its metadata.
func (f *file) dress(tb testing.TB, p string, owners bool) {
	tb.Helper()
	if owners {
		must(tb, os.Lchown(p, int(f.uid), int(f.uid)))
	}
	if f.kind != "symlink" {
		must(tb, unix.Chmod(p, f.mode))
	}
	if f.attr != "" {
		must(tb, unix.Lsetxattr(p, "user.note", []byte(f.attr), 0))
	}
	if f.cap {
		must(tb, unix.Lsetxattr(p, "security.capability", []byte(capability), 0))
	}
	when := []unix.Timespec{{Sec: 1e9 + f.sec, Nsec: 5}, {Sec: 1e9 + f.sec, Nsec: 123_456_789}}
	must(tb, unix.UtimesNanoAt(unix.AT_FDCWD, p, when, unix.AT_SYMLINK_NOFOLLOW))
}

// ofRoot is the time of the root of a tree. BuildKit gives it to the directory
// that the root's contents go to; to bob it has none.
const ofRoot = "whenever"

// portrait tells everything about the files below dir, a line each. Hard links
// are numbered by their first name, times of the last hour are "now".
func portrait(tb testing.TB, dir string) map[string]string {
	tb.Helper()
	lines := make(map[string]string)
	inodes := make(map[uint64]string)
	must(tb, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		must(tb, err)
		var st unix.Stat_t
		must(tb, unix.Lstat(p, &st))
		when := "now"
		if st.Mtim.Sec == 1e9 {
			when = ofRoot
		} else if t := time.Unix(st.Mtim.Unix()); time.Since(t) > time.Hour {
			when = fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
		}
		line := fmt.Sprintf("%07o %d:%d %s", st.Mode, st.Uid, st.Gid, when)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(p)
			must(tb, err)
			line += fmt.Sprintf(" %q", content)
			if first, ok := inodes[st.Ino]; ok {
				line += " = " + first
			} else {
				inodes[st.Ino] = rel
			}
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			must(tb, err)
			line += " -> " + target
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			for _, name := range []string{"user.note", "security.capability"} {
				value := make([]byte, 64)
				if n, err := unix.Lgetxattr(p, name, value); err == nil {
					line += fmt.Sprintf(" %s=%q", name, value[:n])
				}
			}
		}
		lines[rel] = line
		return nil
	}))
	return lines
}

// choices turns bytes into decisions; after the last all are the first.
type choices []byte

func (c *choices) n(k int) int {
	if len(*c) == 0 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % k
}

func pickOne[T any](c *choices, from ...T) T { return from[c.n(len(from))] }

func (c *choices) name() string {
	return pickOne(c, "a", "b", "c", "d", "e", "a.txt", "b.txt", "with space", "[a]", "*", `a\b`, "\xff\xfe", "ä", "..a", "-")
}

// files makes a random tree.
func (c *choices) files() []*file {
	dirs, names := []string{""}, []string{"a"}
	files := make([]*file, c.n(12))
	for i := range files {
		f := &file{
			path: path.Join(pickOne(c, dirs...), c.name()),
			kind: pickOne(c, "file", "dir", "file", "dir", "symlink", "dir", "symlink", "link", "file", "fifo", "socket"),
			mode: pickOne[uint32](c, 0o644, 0o755, 0o600, 0, 0o4755, 0o2755, 0o1777, 0o6711, 0o700, 0o444),
			uid:  pickOne[uint32](c, 0, 1, 1000, 3_000_000),
			sec:  int64(2 + c.n(3)),
		}
		switch f.kind {
		case "file":
			f.target = pickOne(c, f.path, "same", "", packed)
			f.cap = c.n(8) == 1
		case "dir":
			dirs = append(dirs, f.path)
		case "symlink":
			f.target = c.target(names)
		case "link":
			f.target = pickOne(c, names...)
		}
		if (f.kind == "file" || f.kind == "dir") && c.n(4) == 1 {
			f.attr = pickOne(c, "one", "two")
		}
		names = append(names, f.path)
		files[i] = f
	}
	return files
}

// target is what a link may hold.
func (c *choices) target(names []string) string {
	name := pickOne(c, names...)
	return pickOne(c, path.Base(name), "/"+name, "../"+name, name, "nowhere", ".", "..", "/", "/no/where", "../../../../"+name, "./"+name+"/", "//"+name+"/.", name+"/../b")
}

// route is a path that a Dockerfile may have: one of names, or near to it.
func (c *choices) route(files []*file) string {
	names := []string{c.name()}
	for _, f := range files {
		names = append(names, f.path)
	}
	p := pickOne(c, names...)
	p = pickOne(c, p, p, p, p, path.Dir(p), p+"/"+c.name(), p+"/"+c.name()+"/"+c.name(), ".")
	return strings.ToValidUTF8(p, "?") // as all in BuildKit's messages
}

func (c *choices) wildcard(p string) string {
	return pickOne(c, p, p, p, "*", "?", path.Join(path.Dir(p), "*"), path.Join(p, "*"), "*/*", "[ab]*", "*.txt", path.Join("*", path.Base(p)), `\*`, "[^a]*", path.Join(p, "[a-z]*"))
}

func (c *choices) pattern(p string) string {
	return pickOne(c, p, path.Base(p), "*", "**", "**/"+path.Base(p), path.Dir(p)+"/*", p+"/**", "*.txt", "**/*.txt", "*/a", "**/a", "a*", p+"/", "/"+p, `\*`, "*/*", "?")
}

func (c *choices) scene() *scene {
	s := &scene{src: c.files(), dst: c.files()}
	s.do.kind = pickOne(c, "context", "stage", "context", "stage", "add", "file", "repository")
	s.do.dest = path.Join("/", c.route(s.dst)) + pickOne(c, "", "/", "", "/.")
	if strings.HasPrefix(s.do.dest, "//") {
		s.do.dest = "/"
	}
	s.do.chmod = pickOne(c, "", "", "", "", "0700", "4755", "1640", "0", "u+s", "go=u-w,+X", "a=rX", "u=rw,g=r,o=")
	if c.n(3) == 1 {
		s.do.chown = &filecopy.Owner{UID: 7, GID: 8}
	}
	for range max(0, c.n(5)-2) {
		s.do.exclude = append(s.do.exclude, pickOne(c, "", "", "!")+c.pattern(c.route(s.src)))
	}
	switch s.do.kind {
	case "file":
		name := c.name()
		s.src = []*file{{path: name, kind: "file", target: "fetched", mode: 0o600, sec: 2}}
		s.do.source = name
		s.do.exclude = nil
		return s
	case "repository":
		s.do.source = "."
		return s
	}
	s.do.source = c.wildcard(c.route(s.src))
	if s.do.kind != "add" && c.n(4) == 1 {
		s.do.parents = c.pattern(s.do.source)
		if c.n(2) == 0 {
			s.do.source = "."
		}
		s.do.parents = strings.TrimPrefix(path.Join("/", s.do.parents), "/")
	}
	return s
}
