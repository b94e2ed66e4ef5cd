package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

func (st *state) copy(c *instructions.CopyCommand, from From) (Op, string) {
	op := &Copy{From: from, Chown: c.Chown, Chmod: c.Chmod}
	return op, "COPY" + st.fillCopy(op, c.SourcesAndDest, false)
}

func (st *state) add(c *instructions.AddCommand) (Op, string) {
	op := &Copy{Chown: c.Chown, Chmod: c.Chmod}
	return op, "ADD" + st.fillCopy(op, c.SourcesAndDest, true)
}

// fillCopy adds sources and destination to a Copy and returns what the history
// says of it behind the name of the instruction.
func (st *state) fillCopy(op *Copy, paths instructions.SourcesAndDest, unpack bool) string {
	var b strings.Builder
	if op.Chown != "" {
		b.WriteString(" --chown=" + op.Chown)
	}
	if op.Chmod != "" {
		b.WriteString(" --chmod=" + op.Chmod)
	}
	for _, src := range paths.SourcePaths {
		b.WriteString(" " + src)
		// Going up ends at the root, as everywhere in a file system.
		rel := strings.TrimPrefix(path.Join("/", src), "/")
		if rel == "" {
			rel = "."
		}
		op.Sources = append(op.Sources, &Path{Name: rel, Unpack: unpack})
	}
	for _, f := range paths.SourceContents {
		b.WriteString(" <<" + f.Path)
		op.Sources = append(op.Sources, &Inline{Name: strings.TrimPrefix(f.Path, "/"), Content: []byte(f.Data)})
	}
	b.WriteString(" " + paths.DestPath + " # buildkit")
	op.Dest = destination(st.dir(), paths.DestPath)
	return b.String()
}

// destination returns where a copy goes, with a slash at the end if a directory
// is named.
func destination(dir, dest string) string {
	isDir := dest == "" || dest == "." || strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.")
	if !path.IsAbs(dest) {
		dest = path.Join(dir, dest)
	}
	dest = path.Clean(dest)
	if isDir && dest != "/" {
		dest += "/"
	}
	return dest
}

// checkCopy refuses what can't be copied. Words in which something is still to
// be expanded are passed over unless expanded is set.
func checkCopy(name string, paths instructions.SourcesAndDest, chmod string, expanded bool) error {
	for _, src := range paths.SourcePaths {
		kind := remoteKind(src)
		switch {
		case kind == "" || !known(src, expanded):
		case name == "ADD":
			return fmt.Errorf("ADD of a %s is not supported yet: %s", kind, src)
		default:
			return fmt.Errorf("the source of COPY can't be a %s: %s", kind, src)
		}
	}
	for _, f := range paths.SourceContents {
		if err := checkFileName(strings.TrimPrefix(f.Path, "/")); err != nil {
			return fmt.Errorf("%s heredoc: %w", name, err)
		}
	}
	if !known(chmod, expanded) {
		return nil
	}
	return checkChmod(chmod)
}

// known tells whether a word is the same before and after expansion.
func known(word string, expanded bool) bool {
	return expanded || !strings.ContainsAny(word, "$\\`'\"")
}

var (
	gitAddress   = regexp.MustCompile(`^[a-zA-Z0-9_.-]+@[a-zA-Z0-9.-]+:`)
	symbolicMode = regexp.MustCompile(`^[ugoa]*([-+=][rwxXstugo]*)+(,[ugoa]*([-+=][rwxXstugo]*)+)*$`)
)

// remoteKind returns what a source is that isn't a path, "" if it is one.
func remoteKind(src string) string {
	lower := strings.ToLower(src)
	switch {
	case strings.HasPrefix(lower, "http://"), strings.HasPrefix(lower, "https://"):
		base, _, _ := strings.Cut(src, "#")
		base, _, _ = strings.Cut(base, "?")
		if strings.HasSuffix(base, ".git") {
			return "git repository"
		}
		return "URL"
	case strings.HasPrefix(lower, "git://"), strings.HasPrefix(lower, "ssh://"), gitAddress.MatchString(src):
		return "git repository"
	}
	return ""
}

func checkChmod(mode string) error {
	if mode == "" {
		return nil
	}
	bits, err := strconv.ParseUint(mode, 8, 32)
	switch {
	case err == nil && bits <= 0o7777:
		return nil
	case symbolicMode.MatchString(mode):
		return fmt.Errorf("--chmod=%s: symbolic modes are not supported yet, use an octal number", mode)
	}
	return fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", mode)
}

// check refuses instructions that are wrong or not supported, by what they say
// themselves. See checkCopy for expanded.
func check(in instructions.Command, expanded bool) error {
	switch c := in.(type) {
	case *instructions.RunCommand:
		return checkRun(c)
	case *instructions.CopyCommand:
		switch {
		case c.Parents:
			return errors.New("COPY --parents is not supported yet")
		case len(c.ExcludePatterns) > 0:
			return errors.New("COPY --exclude is not supported yet")
		}
		return checkCopy("COPY", c.SourcesAndDest, c.Chmod, expanded)
	case *instructions.AddCommand:
		switch {
		case len(c.ExcludePatterns) > 0:
			return errors.New("ADD --exclude is not supported yet")
		case c.Checksum != "":
			return errors.New("ADD --checksum is not supported yet")
		case c.KeepGitDir != nil:
			return errors.New("ADD --keep-git-dir is not supported yet")
		case c.Unpack != nil:
			return errors.New("ADD --unpack is not supported yet")
		}
		return checkCopy("ADD", c.SourcesAndDest, c.Chmod, expanded)
	case *instructions.StopSignalCommand:
		if known(c.Signal, expanded) {
			return checkSignal(c.Signal)
		}
	case *instructions.ExposeCommand:
		for _, port := range c.Ports {
			if !expanded && known(port, false) {
				if _, err := parsePort(port); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkRun(c *instructions.RunCommand) error {
	switch {
	case len(instructions.GetMounts(c)) > 0:
		return errors.New("RUN --mount is not supported yet")
	case len(instructions.GetDevices(c)) > 0:
		return errors.New("RUN --device is not supported yet")
	case instructions.GetSecurity(c) != instructions.SecuritySandbox:
		return fmt.Errorf("RUN --security=%s is not supported yet", instructions.GetSecurity(c))
	case len(c.CmdLine) == 0 && !c.PrependShell:
		return errors.New("RUN [] requires a command")
	}
	_, _, err := runArgs(c)
	return err
}
