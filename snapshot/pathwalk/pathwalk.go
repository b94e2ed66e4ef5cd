// Package pathwalk goes along paths and follows the symbolic links on the way, so that
// neither a link nor ".." leads out of the directory where the way begins: an absolute
// link counts from there, and ".." ends there. What the directories are is up to the
// caller's [Place]: open directories of this machine, layers laid over each other, or
// what an archive says of itself.
//
// A link may hold anything. It costs its length and one of the links that the walk may
// follow.
package pathwalk

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// MaxLinks is how many symbolic links one path may go through in containerd and
// BuildKit. The kernel follows 40.
const MaxLinks = 255

// A Place is the directory that a walk is in.
type Place interface {
	// Root goes to the directory where the way began.
	Root()
	// Up goes to the parent. That of the root is the root.
	Up() error
	// Down goes to the entry name, which is neither "." nor "..". If that is a symbolic
	// link to follow, Down stays where it is and returns what the link holds. w tells
	// what comes after the name. An error ends the walk.
	Down(name string, w *Walk) (target string, link bool, err error)
}

// A Walk goes along paths. One goroutine uses it at a time.
type Walk struct {
	most  int
	links int
	// rest is what is left to go: the path's rest first, then the rest of each link on it.
	// The last is gone first.
	rest []string
}

// New returns a walk that follows at most so many links.
func New(most int) *Walk { return &Walk{most: most} }

// Along goes along p from the place at. A leading slash of p means nothing, and p may
// hold "..". Links are counted over all paths of the walk: one too many is
// [unix.ELOOP]. Other errors come from at.
func (w *Walk) Along(p string, at Place) error {
	w.rest = append(w.rest[:0], p)
	for name := w.next(); name != ""; name = w.next() {
		if name == ".." {
			if err := at.Up(); err != nil {
				return err
			}
			continue
		}
		target, link, err := at.Down(name, w)
		if err != nil {
			return err
		}
		if !link {
			continue
		}
		if w.links++; w.links > w.most {
			return fmt.Errorf("link %q: %w", name, unix.ELOOP)
		}
		if path.IsAbs(target) {
			at.Root()
		}
		w.rest = append(w.rest, target)
	}
	return nil
}

// next takes the next element that isn't ".", "" at the end.
func (w *Walk) next() string {
	for len(w.rest) > 0 {
		name, rest, _ := strings.Cut(w.rest[len(w.rest)-1], "/")
		w.rest = w.rest[:len(w.rest)-1]
		if rest != "" {
			w.rest = append(w.rest, rest)
		}
		if name != "" && name != "." {
			return name
		}
	}
	return ""
}

// Links returns how many links were followed.
func (w *Walk) Links() int { return w.links }

// Rest returns what comes after the name that Down was given, for messages: in its
// shortest form, which links may lead elsewhere, and "" where nothing comes.
func (w *Walk) Rest() string {
	var all string
	for _, rest := range w.rest {
		all = path.Join(rest, all)
	}
	if all == "." {
		return ""
	}
	return strings.TrimLeft(all, "/")
}

// Last reports whether the name that Down was given is the last of the way.
func (w *Walk) Last() bool { return w.ahead() == "" }

// Returns reports whether ".." comes after the name that Down was given.
func (w *Walk) Returns() bool { return w.ahead() == ".." }

// ahead returns what next would.
func (w *Walk) ahead() string {
	for _, rest := range slices.Backward(w.rest) {
		for name := range strings.SplitSeq(rest, "/") {
			if name != "" && name != "." {
				return name
			}
		}
	}
	return ""
}

// A Position is the clean path of a directory from the root, which is "". A [Place] that
// embeds one needs Down alone.
type Position struct{ Path string }

// Root goes to the root.
func (p *Position) Root() { p.Path = "" }

// Up goes to the parent.
func (p *Position) Up() error {
	p.Path = p.Path[:max(0, strings.LastIndexByte(p.Path, '/'))]
	return nil
}

// Join returns the path of the entry name.
func (p *Position) Join(name string) string {
	if p.Path == "" {
		return name
	}
	return p.Path + "/" + name
}
