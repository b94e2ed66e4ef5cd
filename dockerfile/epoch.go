package dockerfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// EpochSource is the source whose time SOURCE_DATE_EPOCH asks for when it is not a
// number. One field is set.
type EpochSource struct {
	Context string // "context" for the build context, or a key of [Options.Contexts]
	Source  Source // a *Download or a *Repository
}

// EpochSource returns the source whose time SOURCE_DATE_EPOCH asks for, nil if it is not
// given, empty, or a number. That time goes into [Options.SourceEpoch]. The time of a
// commit is the committer's. The time of a download is its Last-Modified, or else the
// time of the newest file in the archive. Other sources have no time.
func (f *File) EpochSource(o Options) (*EpochSource, error) {
	if f.mistake != nil {
		return nil, f.mistake
	}
	contexts, err := newNamedContexts(o.Contexts)
	if err != nil {
		return nil, position.Locate(err, f.source.Whole())
	}
	globals, err := f.globalArgs(o, platformArgs(o, f.targetName(o)))
	if err != nil {
		return nil, err
	}
	value, at := f.epochValue(o, globals)
	if _, err := strconv.ParseInt(value, 10, 64); value == "" || err == nil {
		return nil, nil // nothing to ask for
	}
	source, err := f.epochSource(value, o, contexts, globals)
	return source, position.Locate(err, at)
}

// epochValue returns SOURCE_DATE_EPOCH and where it is set.
func (f *File) epochValue(o Options, globals *environ.Map) (string, Location) {
	if value, ok := o.BuildArgs[argEpoch]; ok {
		return value, f.source.Whole()
	}
	value, _ := globals.Get(argEpoch)
	at := f.source.Whole()
	for _, c := range f.globals {
		for _, arg := range c.Args {
			if arg.Key == argEpoch {
				at = f.source.Of(c.Location())
			}
		}
	}
	return value, at
}

// epoch returns the time that SOURCE_DATE_EPOCH asks for and puts it into the
// arguments as a number, or takes the argument out of them if it is none.
func (f *File) epoch(o Options, contexts namedContexts, globals *environ.Map) (*time.Time, error) {
	value, at := f.epochValue(o, globals)
	var epoch *time.Time
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		t := time.Unix(seconds, 0).UTC()
		epoch = &t
	} else if value != "" {
		source, err := f.epochSource(value, o, contexts, globals)
		switch {
		case err != nil:
			return nil, position.Locate(err, at)
		case o.SourceEpoch == nil && source.Source != nil:
			return nil, position.Locate(fmt.Errorf("SOURCE_DATE_EPOCH=%s: the time of this source was not looked up", value), at)
		case o.SourceEpoch != nil && !o.SourceEpoch.IsZero():
			t := time.Unix(o.SourceEpoch.Unix(), 0).UTC()
			epoch = &t
		}
	}
	_, given := o.BuildArgs[argEpoch]
	_, global := globals.Get(argEpoch)
	if value == "" && !given {
		return nil, nil // a global argument without a value stays one
	}
	if epoch == nil {
		delete(o.BuildArgs, argEpoch)
		globals.Delete(argEpoch)
		return nil, nil // no epoch
	}
	number := strconv.FormatInt(epoch.Unix(), 10)
	if given {
		o.BuildArgs[argEpoch] = number
	}
	if global {
		globals.Set(argEpoch, number)
	}
	return epoch, nil
}

// epochSource resolves a SOURCE_DATE_EPOCH that is a name.
func (f *File) epochSource(value string, o Options, contexts namedContexts, globals *environ.Map) (*EpochSource, error) {
	if value == "context" {
		return &EpochSource{Context: value}, nil
	}
	if c, err := contexts.find(value, o.TargetPlatform); err != nil {
		return nil, fmt.Errorf("invalid SOURCE_DATE_EPOCH: %w", err)
	} else if c != nil {
		return &EpochSource{Context: c.key}, nil
	}
	var names []string
	for _, stage := range f.stages {
		if stage.Name != "" && strings.EqualFold(stage.Name, value) {
			source, err := f.epochStage(stage, o, globals)
			if err != nil {
				return nil, position.Locate(err, f.source.Of(stage.Location))
			}
			return &EpochSource{Source: source}, nil
		}
		names = append(names, stage.Name)
	}
	return nil, fmt.Errorf("invalid SOURCE_DATE_EPOCH: %s%s: it must be a number of seconds, context, or the name of a stage or a named context",
		value, spelling.DidYouMean(value, names))
}

// epochStage returns the one source that a stage adds to scratch.
func (f *File) epochStage(stage instructions.Stage, o Options, globals *environ.Map) (Source, error) {
	env := globals.Clone()
	env.Delete(argEpoch)
	lex := expand.New(f.escape)
	if base, err := lex.Word(stage.BaseName, env); err != nil {
		return nil, err
	} else if base != "scratch" {
		return nil, errors.New("SOURCE_DATE_EPOCH stage must use FROM scratch")
	}
	one := errors.New("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")
	var source Source
	for _, in := range stage.Commands {
		var err error
		switch c := in.(type) {
		case *instructions.ArgCommand:
			err = declareArgs(c, o.BuildArgs, env, lex)
		case *instructions.AddCommand:
			if source != nil || len(c.SourceContents) != 0 || len(c.SourcePaths) != 1 {
				return nil, one
			}
			source, err = epochAdd(c, env, lex)
		default:
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported %s instruction", in.Name())
		}
		if err != nil {
			return nil, position.Locate(err, f.source.Of(in.Location()))
		}
	}
	if source == nil {
		return nil, one
	}
	return source, nil
}

func epochAdd(c *instructions.AddCommand, env *environ.Map, lex expand.Lexer) (Source, error) {
	src, err := lex.Word(c.SourcePaths[0], env)
	if err != nil {
		return nil, err
	}
	remote := remoteOptions{keepGitDir: c.KeepGitDir}
	if remote.checksum, err = lex.Word(c.Checksum, env); err != nil {
		return nil, err
	}
	source, err := remote.source(src)
	if err != nil {
		return nil, err
	}
	if source == nil {
		return nil, errors.New("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")
	}
	return source, nil
}
