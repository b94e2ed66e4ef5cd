package output

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor/image"
	"github.com/distribution/reference"
	"golang.org/x/term"
)

// A kind is a type of --output.
type kind struct {
	// name is what the user writes.
	name string
	// to is the executor's name for it. It is "" for a registry, since the executor
	// gets tags in place of an output.
	to image.OutputType
	// pushes says that the image is pushed, also without push=true.
	pushes bool
	// isImage says that it holds an image, not only its files.
	isImage bool
	// isDir says that it is a directory, and mayBeDir that tar=false makes it one.
	isDir, mayBeDir bool
}

// kinds are the types of --output, in the order that help lists them in.
func kinds() []kind {
	return []kind{
		{name: "registry", pushes: true, isImage: true},
		{name: "image", isImage: true},
		{name: "oci", to: image.OutputOCI, isImage: true, mayBeDir: true},
		{name: "docker", to: image.OutputDocker, isImage: true},
		{name: "local", to: image.OutputLocal, isDir: true},
		{name: "tar", to: image.OutputTar},
	}
}

func kindOf(name string) (kind, error) {
	for _, k := range kinds() {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("unknown type %q; want %s", name, cli.Words(kindNames()))
}

func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}

// A spec is one value of --output.
type spec struct {
	kind

	text     string // as written
	dest     string // a path, or - for standard output
	dir      bool   // tar=false
	push     bool
	byDigest bool
	names    []string
	image    []cli.Field // changes to the format of the flags
}

// wrong returns an error about this value of the flag.
func (s *spec) wrong(format string, args ...any) error {
	return cli.About("output", s.text, cli.Errorf("-o %s: %s", s.text, fmt.Sprintf(format, args...)))
}

func (s *spec) toRegistry() bool { return s.to == "" }

// sameImage reports whether s and other ask for the same bytes in a registry.
func (s *spec) sameImage(other *spec) bool {
	return s.byDigest == other.byDigest && slices.Equal(s.image, other.image)
}

// format returns the format of the flags with what this output changes in it.
func (s *spec) format(common image.Format) image.Format {
	_ = s.change(&common) // parse has checked it
	return common
}

// output returns the executor's output. s must not be a registry.
func (s *spec) output(common image.Format, stdout io.Writer) (image.Output, error) {
	out := image.Output{Type: s.to, Dest: s.dest, Dir: s.dir, Format: s.format(common)}
	if s.dest == "-" {
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return out, s.wrong("a tar would be written to the terminal; name a file with dest= or redirect it")
		}
		out.Writer = stdout
	}
	return out, nil
}

// parse parses the value: comma-separated fields, or a directory, or - for a tar on
// standard output.
func (s *spec) parse() error {
	var name string
	switch fields, err := cli.Fields(s.text); {
	case s.text == "-":
		name, s.dest = "tar", "-"
	case err != nil:
		return err
	case len(fields) == 1 && !fields[0].HasValue:
		name, s.dest = "local", s.text
	default:
		if name, err = s.fields(fields); err != nil {
			return err
		}
	}
	var err error
	if s.kind, err = kindOf(name); err != nil {
		return err
	}
	for _, name := range s.names {
		if _, err := reference.ParseNormalizedNamed(name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	return s.check()
}

// fields sets what the fields say, and returns the name of the type.
func (s *spec) fields(fields []cli.Field) (name string, err error) {
	for _, f := range fields {
		switch f.Key {
		case "type":
			name = f.Value
		case "dest":
			s.dest = f.Value
		case "name":
			s.names = strings.Split(f.Value, ",")
		case "tar":
			if f.Value != "true" && f.Value != "false" {
				return "", errors.New("tar is true or false")
			}
			s.dir = f.Value == "false"
		case "push":
			if s.push, err = cli.Bool(f.Value); err != nil {
				return "", fmt.Errorf("push: %w", err)
			}
		default:
			if err := s.field(f); err != nil {
				return "", err
			}
		}
	}
	return name, nil
}

// check checks that the fields fit the type, and fills in defaults.
func (s *spec) check() (err error) {
	if s.toRegistry() {
		if s.dest != "" || s.dir {
			return errors.New("dest and tar go with types that are written to a file")
		}
		s.push = s.push || s.pushes
		return nil
	}
	directory := s.isDir || s.dir
	switch {
	case s.push, s.byDigest:
		return errors.New("push goes with type=image")
	case len(s.image) > 0 && !s.isImage:
		return fmt.Errorf("%s is about an image, and this writes files", s.image[0].Key)
	case s.dir && !s.mayBeDir:
		return errors.New("tar=false goes with type=oci")
	case s.dest == "" && directory:
		return errors.New("dest, a directory, is missing")
	case s.dest == "-" && directory:
		return errors.New("a directory can't be written to standard output")
	case s.dest == "":
		s.dest = "-" // as docker build does
	case s.dest != "-":
		s.dest, err = filepath.Abs(s.dest)
	}
	return err
}

// field takes a field of --output that is about the image, as buildx has them.
func (s *spec) field(f cli.Field) error {
	if reason, ok := refusedFields()[f.Key]; ok {
		if f.Value == "false" {
			return nil
		}
		return fmt.Errorf("%s: %s", f.Key, reason)
	}
	switch f.Key {
	case "push-by-digest":
		var err error
		s.byDigest, err = cli.Bool(f.Value)
		return err
	case "name-canonical": // a name in a store; the registry has the digest anyway
		_, err := cli.Bool(f.Value)
		return err
	case "rewrite-timestamp":
		if on, err := cli.Bool(f.Value); err != nil || !on {
			return fmt.Errorf("rewrite-timestamp=%s: with SOURCE_DATE_EPOCH bob always does", f.Value)
		}
		return nil
	}
	if !annotationField.MatchString(f.Key) && formatFields()[f.Key] == nil {
		known := slices.Sorted(maps.Keys(formatFields()))
		return fmt.Errorf("unknown field %q; want type, dest, name, tar, push, push-by-digest, annotation.KEY, %s", f.Key, strings.Join(known, ", "))
	}
	s.image = append(s.image, f)
	return s.change(&image.Format{})
}

// change makes the format that the flags ask for the format of this output.
func (s *spec) change(format *image.Format) error {
	for _, f := range s.image {
		if formatFields()[f.Key] != nil {
			if err := SetField(format, f.Key, f.Value); err != nil {
				return err
			}
			continue
		}
		part := annotationField.FindStringSubmatch(f.Key)
		if err := annotateOn(format, part[1], part[2], part[3], f.Value); err != nil {
			return fmt.Errorf("%s: %w", f.Key, err)
		}
	}
	return nil
}
