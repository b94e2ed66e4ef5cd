package dockerfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/opencontainers/go-digest"
)

// MaxSize is the largest Dockerfile that is read, in bytes.
const MaxSize = 16 << 20

// utf8BOM may begin a Dockerfile and is no part of its first line.
const utf8BOM = "\xef\xbb\xbf"

// File is a parsed Dockerfile. It is immutable and safe for concurrent use.
type File struct {
	text    digest.Digest
	source  *position.Text
	escape  rune
	globals []*instructions.ArgCommand
	stages  []instructions.Stage
	mounts  map[instructions.Command]*parser.Node // of those RUNs that have any
	foreign error                                 // the syntax directive names another frontend
	mistake error                                 // in an instruction, or that there is no FROM

	// What the linter needs.
	nodes         []*parser.Node // all instructions, up to the one with the mistake
	continuations []parser.Range // where empty lines are continued
	check         string         // value of the check directive
	checkAt       Location
}

// Parse reads a Dockerfile to the end of r. The name is used in messages only.
// Errors of r are returned as they are, wrapped with the name; all others are
// an *Error. The text may have at most 16 MiB and 65,535 bytes in a line. A
// mistake in an instruction is an error of [File.Plan], so that [File.Lint] can
// find what stands before it.
func Parse(name string, r io.Reader) (*File, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	src := &position.Text{Name: name, Lines: splitLines(text)}
	if err := checkText(src, text); err != nil {
		return nil, err
	}
	f := &File{text: digest.FromBytes(text), source: src, mounts: map[instructions.Command]*parser.Node{}}
	err = f.parse(text)
	if (err != nil || f.mistake != nil) && f.foreign != nil {
		return nil, f.foreign // which explains it
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// parse fills f with what the text says.
func (f *File) parse(text []byte) error {
	if err := f.directives(text); err != nil {
		return err
	}
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return f.parserError(err)
	}
	f.escape = parsed.EscapeToken
	for _, w := range parsed.Warnings {
		if w.Location != nil {
			f.continuations = append(f.continuations, *w.Location)
		}
	}
	f.mistake = f.instructions(parsed.AST)
	return nil
}

func splitLines(text []byte) []string {
	lines := strings.Split(strings.TrimPrefix(string(text), utf8BOM), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSuffix(line, "\r")
	}
	return lines
}

// checkText refuses what the parser would misread or report at a wrong line.
func checkText(src *position.Text, text []byte) error {
	if len(text) > MaxSize {
		return position.Locate(fmt.Errorf("the file is larger than %d MiB", MaxSize>>20), src.Whole())
	}
	empty := true
	for i, line := range src.Lines {
		at := src.At(i+1, i+1)
		if len(line) >= bufio.MaxScanTokenSize-1 {
			return position.Locate(fmt.Errorf("the line is longer than %d bytes", bufio.MaxScanTokenSize-1), at)
		}
		word := strings.TrimLeftFunc(line, unicode.IsSpace)
		if word == "" || word[0] == '#' {
			continue
		}
		empty = false
		if !utf8.ValidString(line) || strings.Contains(line, "\x00") {
			return position.Locate(errors.New("the line is not valid UTF-8 text"), at)
		}
	}
	if empty {
		last := max(1, len(src.Lines))
		if last > 1 && src.Lines[last-1] == "" {
			last-- // what is behind the last newline is no line
		}
		return position.Locate(errors.New("the file has no instructions"), src.At(last, last))
	}
	return nil
}

// directives reads the comments at the head of the file: syntax, check and
// escape. They are read here first because the parser reports their errors one
// line early.
func (f *File) directives(text []byte) error {
	if frontend, _, at, ok := parser.DetectSyntax(text); ok && !isOwnFrontend(frontend) {
		loc := f.source.Of(at)
		if loc.Start == 0 {
			loc = f.source.At(1, 1)
		}
		f.foreign = position.Locate(fmt.Errorf("syntax %s is another frontend: only docker/dockerfile is understood", frontend), loc)
	}
	var head parser.DirectiveParser
	for i, line := range f.source.Lines {
		at := f.source.At(i+1, i+1)
		directive, err := head.ParseLine([]byte(strings.TrimLeftFunc(line, unicode.IsSpace)))
		if err != nil {
			return position.Locate(err, at)
		}
		if directive == nil {
			break
		}
		if directive.Name == "escape" && directive.Value != `\` && directive.Value != "`" {
			return position.Locate(fmt.Errorf("escape %q must be \\ or `", directive.Value), at)
		}
	}
	check, _, at, _ := parser.ParseDirective("check", text)
	f.check, f.checkAt = check, f.source.Of(at)
	return nil
}

// parserError turns an error of the line parser into an Error.
func (f *File) parserError(err error) error {
	loc := f.source.At(1, 1)
	if located, ok := errors.AsType[*parser.LocationError](err); ok && len(located.Locations) > 0 {
		loc = f.source.Of(located.Locations[0])
	}
	return position.Locate(err, loc)
}

// instructions sorts the parsed lines into global arguments and stages.
func (f *File) instructions(ast *parser.Node) error {
	lint := linter.New(&linter.Config{}) // a nil one would not survive a comment with lint options
	for i, node := range ast.Children {
		f.nodes = ast.Children[:i+1]
		at := f.source.At(node.StartLine, node.EndLine)
		instruction, err := instructions.ParseInstructionWithLinter(node, lint)
		if err != nil {
			return position.Locate(spelling.Instruction(err, node.Value), at)
		}
		switch in := instruction.(type) {
		case *instructions.Stage:
			f.stages = append(f.stages, *in)
		case *instructions.ArgCommand:
			if len(f.stages) == 0 {
				f.globals = append(f.globals, in)
				continue
			}
			f.stages[len(f.stages)-1].AddCommand(in)
		case instructions.Command:
			if len(f.stages) == 0 {
				return position.Locate(fmt.Errorf("%s before the first FROM: only ARG may stand there", strings.ToUpper(in.Name())), at)
			}
			f.stages[len(f.stages)-1].AddCommand(in)
			if node := mountNode(in, node); node != nil {
				f.mounts[in] = node
			}
		default:
			return position.Locate(fmt.Errorf("%s is not an instruction of a stage", strings.ToUpper(node.Value)), at)
		}
	}
	if len(f.stages) == 0 {
		last := ast.Children[len(ast.Children)-1]
		return position.Locate(errors.New("no FROM: the file has no stages to build"), f.source.At(last.StartLine, last.EndLine))
	}
	return nil
}

// mountNode returns the node of a RUN that has mounts, and nil for others.
func mountNode(in instructions.Command, node *parser.Node) *parser.Node {
	if run, ok := in.(*instructions.RunCommand); ok && len(instructions.GetMounts(run)) > 0 {
		return node
	}
	return nil
}
