package harness

import (
	"archive/tar"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// An Entry is one entry of a layer's tar, its content replaced by the sum.
type Entry struct {
	Name         string // as in the tar
	Type         byte   // a tar.Type constant
	Mode         int64  // permission, setuid, setgid and sticky bits
	UID, GID     int
	Size         int64
	Sum          string // hex SHA-256 of a regular file's content
	Link         string
	Major, Minor int64
	ModTime      time.Time
	Xattrs       map[string]string
}

// A Layer is one layer of an image, base first.
type Layer struct {
	ocispec.Descriptor
	DiffID  digest.Digest
	Entries []Entry
}

// A Tree is what a container sees: cleaned paths without a leading slash, each
// with its inode. Names of one hardlinked file share their Entry.
type Tree map[string]*Entry

// Flatten applies layers, base first, by the rules of the image specification.
func Flatten(layers []Layer) (Tree, error) {
	t := Tree{}
	for i, layer := range layers {
		if err := t.apply(layer.Entries); err != nil {
			return nil, fmt.Errorf("apply layer %d: %w", i, err)
		}
	}
	return t, nil
}

// apply removes first what whiteouts hide, since they hide lower layers only
// and may stand anywhere in the tar, then adds.
func (t Tree) apply(entries []Entry) error {
	for _, e := range entries {
		name := clean(e.Name)
		dir, base := path.Split(name)
		switch hidden, isWhiteout := strings.CutPrefix(base, whiteout); {
		case base == opaque:
			t.removeBelow(strings.TrimSuffix(dir, "/"))
		case isWhiteout:
			t.removeBelow(dir + hidden)
			delete(t, dir+hidden)
		}
	}
	for _, e := range entries {
		name := clean(e.Name)
		if strings.HasPrefix(path.Base(name), whiteout) || name == "" {
			continue
		}
		if e.Type != tar.TypeDir {
			t.removeBelow(name)
		}
		if e.Type == tar.TypeLink {
			target, ok := t[clean(e.Link)]
			if !ok {
				return fmt.Errorf("%s is a hardlink to %s, which is not there", name, e.Link)
			}
			t[name] = target
			continue
		}
		t[name] = &e
	}
	return nil
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t Tree) removeBelow(dir string) {
	prefix := dir + "/"
	if dir == "" {
		prefix = ""
	}
	maps.DeleteFunc(t, func(name string, _ *Entry) bool { return strings.HasPrefix(name, prefix) })
}

// Lines lists a tree, one line for each path: type and mode, owner, size, path,
// then the link's target, the device's numbers, the content's sum or "= other"
// for a further name of an inode, then extended attributes in hexadecimal.
func (t Tree) Lines() map[string]string {
	lines := make(map[string]string, len(t))
	first := map[*Entry]string{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		e := t[name]
		if other, seen := first[e]; seen {
			lines[name] = printable(name) + " = " + printable(other)
			continue
		}
		first[e] = name
		lines[name] = describeEntry(printable(name), e)
	}
	return lines
}

// printable quotes a name that would spoil a listing.
func printable(name string) string {
	if utf8.ValidString(name) && strings.IndexFunc(name, unicode.IsControl) < 0 {
		return name
	}
	return strconv.Quote(name)
}

func describeEntry(name string, e *Entry) string {
	var b strings.Builder
	mode := e.Mode
	kind := map[byte]string{
		tar.TypeReg: "-", tar.TypeDir: "d", tar.TypeSymlink: "l", tar.TypeChar: "c",
		tar.TypeBlock: "b", tar.TypeFifo: "p",
	}[e.Type]
	if kind == "" {
		kind = fmt.Sprintf("?%c", e.Type)
	}
	if e.Type == tar.TypeSymlink {
		mode = 0o777 // Linux gives symlinks no other
	}
	fmt.Fprintf(&b, "%s%04o %d:%d %s", kind, mode, e.UID, e.GID, name)
	switch e.Type {
	case tar.TypeReg:
		fmt.Fprintf(&b, " %d %s", e.Size, e.Sum[:12])
	case tar.TypeSymlink:
		fmt.Fprintf(&b, " -> %s", e.Link)
	case tar.TypeChar, tar.TypeBlock:
		fmt.Fprintf(&b, " %d,%d", e.Major, e.Minor)
	}
	for _, key := range slices.Sorted(maps.Keys(e.Xattrs)) {
		fmt.Fprintf(&b, " %s=%s", key, hex.EncodeToString([]byte(e.Xattrs[key])))
	}
	return b.String()
}

// Changes lists what differs in t from base, sorted by path: "A " and the line
// of what was added, "C " of what was changed, "D " and the path of what is gone.
func (t Tree) Changes(base Tree) []string {
	was, is := base.Lines(), t.Lines()
	names := map[string]bool{}
	for n := range was {
		names[n] = true
	}
	for n := range is {
		names[n] = true
	}
	var out []string
	for _, n := range slices.Sorted(maps.Keys(names)) {
		old, had := was[n]
		line, has := is[n]
		switch {
		case !has:
			out = append(out, "D "+printable(n))
		case !had:
			out = append(out, "A "+line)
		case old != line:
			out = append(out, "C "+line)
		}
	}
	return out
}

// Problems lists what is wrong with a layer that bob made, whatever is in it:
// each has broken some client of the field.
func (l Layer) Problems() []string {
	var found []string
	add := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	seen := map[string]byte{}
	for _, e := range l.Entries {
		name := strings.TrimSuffix(e.Name, "/")
		dir, base := path.Split(name)
		dir = strings.TrimSuffix(dir, "/")
		if name != clean(name) {
			add("%q: not a clean relative name", e.Name)
			continue
		}
		if _, twice := seen[name]; twice {
			add("%q: there twice", e.Name)
		}
		seen[name] = e.Type
		if dir != "" && seen[dir] != tar.TypeDir {
			add("%q: its parent is not in the layer before it", e.Name)
		}
		if strings.HasPrefix(base, whiteout) && (e.Type != tar.TypeReg || e.Size != 0) {
			add("%q: a whiteout must be an empty file", e.Name)
		}
		if e.Type == tar.TypeLink && (e.Link != clean(e.Link) || seen[e.Link] != tar.TypeReg) {
			add("%q: hardlink to %q, not a file before it in the layer", e.Name, e.Link)
		}
		for key := range e.Xattrs {
			if strings.HasPrefix(key, "user.overlay.") || strings.HasPrefix(key, "trusted.overlay.") || key == "user.containers.override_stat" {
				add("%q: attribute %s is the builder's own", e.Name, key)
			}
		}
	}
	return found
}
