// Package sharedcache parses what --cache-from and --cache-to name: the caches by which
// machines share results, in registries, directories and images.
package sharedcache

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/opencontainers/go-digest"
)

// A kind is a type of shared cache.
type kind struct {
	// name is the value of the field type.
	name string
	// from and to make a source and a target from the fields of a value.
	from func(values map[string]string) (*cache.Source, error)
	to   func(values map[string]string) (*cache.Target, error)
	// fromUsage and toUsage show the values in help; "" is not shown.
	fromUsage, toUsage string
}

// kinds are the types in the order that help lists them in.
func kinds() []kind {
	return []kind{
		{"registry", fromRegistry, toRegistry, "type=registry,ref=REF", "type=registry,ref=REF[,mode=max]"},
		{"local", fromLocal, toLocal, "type=local,src=DIR", "type=local,dest=DIR"},
		{"inline", fromInline, toInline, "", "type=inline"},
	}
}

func kindOf(name string) (kind, error) {
	var names []string
	for _, k := range kinds() {
		if k.name == name {
			return k, nil
		}
		names = append(names, k.name)
	}
	switch want := cli.Words(names); name {
	case "":
		return kind{}, fmt.Errorf("type is missing; want %s", want)
	case "gha", "s3", "azblob":
		return kind{}, fmt.Errorf("bob doesn't know caches of type %s; want %s", name, want)
	default:
		return kind{}, fmt.Errorf("no type %q; want %s", name, want)
	}
}

// Usage returns examples of the values of --cache-from and of --cache-to.
func Usage() (from, to string) {
	var froms, tos []string
	for _, k := range kinds() {
		if k.fromUsage != "" {
			froms = append(froms, k.fromUsage)
		}
		if k.toUsage != "" {
			tos = append(tos, k.toUsage)
		}
	}
	return strings.Join(froms, " or "), strings.Join(tos, " or ")
}

func fromRegistry(values map[string]string) (*cache.Source, error) {
	if err := onlyFields(values, "ref"); err != nil {
		return nil, err
	}
	return &cache.Source{Ref: values["ref"]}, checkRef(values["ref"])
}

func toRegistry(values map[string]string) (*cache.Target, error) {
	if err := onlyFields(values, common("ref")...); err != nil {
		return nil, err
	}
	ref := values["ref"]
	if strings.Contains(ref, "@") {
		return nil, errors.New("ref: the digest is the cache's, leave it out")
	}
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	t := &cache.Target{Ref: ref}
	return t, setCommon(t, values)
}

func fromLocal(values map[string]string) (*cache.Source, error) {
	if err := onlyFields(values, "src", "tag", "digest"); err != nil {
		return nil, err
	}
	l := &archive.LayoutImage{Dir: values["src"], Tag: values["tag"], Digest: digest.Digest(values["digest"])}
	if l.Dir == "" {
		return nil, errors.New("src, the directory, is missing")
	}
	if l.Digest != "" {
		if err := l.Digest.Validate(); err != nil {
			return nil, err
		}
	}
	return &cache.Source{Layout: l}, nil
}

func toLocal(values map[string]string) (*cache.Target, error) {
	if err := onlyFields(values, common("dest", "tag")...); err != nil {
		return nil, err
	}
	t := &cache.Target{Dir: values["dest"], Tag: cmp.Or(values["tag"], "latest")}
	if t.Dir == "" {
		return nil, errors.New("dest, the directory, is missing")
	}
	if err := checkRef("cache:" + t.Tag); err != nil {
		return nil, err
	}
	return t, setCommon(t, values)
}

func fromInline(map[string]string) (*cache.Source, error) {
	return nil, errors.New("the records are in the image: name it, as type=registry,ref=IMAGE")
}

func toInline(values map[string]string) (*cache.Target, error) {
	return &cache.Target{Inline: true}, onlyFields(values)
}

// ParseFrom parses a value of --cache-from.
func ParseFrom(spec string) (*cache.Source, error) {
	k, values, err := read(spec)
	if err != nil {
		return nil, err
	}
	return k.from(values)
}

// ParseTo parses a value of --cache-to.
func ParseTo(spec string) (*cache.Target, error) {
	k, values, err := read(spec)
	if err != nil {
		return nil, err
	}
	return k.to(values)
}

// read returns the kind that a value names, and its fields.
func read(spec string) (kind, map[string]string, error) {
	values, err := parse(spec)
	if err != nil {
		return kind{}, nil, err
	}
	k, err := kindOf(values["type"])
	return k, values, err
}
