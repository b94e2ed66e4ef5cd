// Package sharedcache parses what --cache-from and --cache-to name: the caches by which
// machines share results, in registries, directories and images.
package sharedcache

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/output"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// mounts is the field that may be given several times. Its values are lines then.
const mounts = "mounts"

// parse parses comma-separated fields; a reference alone is one in a registry.
func parse(spec string) (map[string]string, error) {
	fields, err := cli.Fields(spec)
	if err != nil {
		return nil, err
	}
	if len(fields) == 1 && !fields[0].HasValue {
		return map[string]string{"type": "registry", "ref": fields[0].Key}, nil
	}
	values := make(map[string]string)
	for _, f := range fields {
		key, value := strings.ToLower(f.Key), f.Value
		if !f.HasValue {
			return nil, fmt.Errorf("%q: want NAME=VALUE", f.Key)
		}
		if before, twice := values[key]; twice {
			if key != mounts {
				return nil, fmt.Errorf("%s is given twice", key)
			}
			value = before + "\n" + value
		}
		values[key] = value
	}
	switch t := values["type"]; t {
	case "registry", "local", "inline":
	case "":
		return nil, errors.New("type is missing; want registry, local or inline")
	case "gha", "s3", "azblob":
		return nil, fmt.Errorf("bob doesn't know caches of type %s; want registry, local or inline", t)
	default:
		return nil, fmt.Errorf("no type %q; want registry, local or inline", t)
	}
	return values, nil
}

// onlyFields refuses fields that a cache of the type hasn't.
func onlyFields(values map[string]string, names ...string) error {
	known := "it has none"
	if len(names) > 0 {
		known = "want " + strings.Join(names, ", ")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if key != "type" && !slices.Contains(names, key) {
			return fmt.Errorf("unknown field %q of type=%s; %s", key, values["type"], known)
		}
	}
	return nil
}

// ParseFrom parses a value of --cache-from.
func ParseFrom(spec string) (*cache.Source, error) {
	values, err := parse(spec)
	if err != nil {
		return nil, err
	}
	switch values["type"] {
	case "registry":
		if err := onlyFields(values, "ref"); err != nil {
			return nil, err
		}
		return &cache.Source{Ref: values["ref"]}, checkRef(values["ref"])
	case "local":
		if err := onlyFields(values, "src", "tag", "digest"); err != nil {
			return nil, err
		}
		l := &archive.LayoutImage{Dir: values["src"], Tag: values["tag"], Digest: digest.Digest(values["digest"])}
		if l.Dir == "" {
			return nil, errors.New("src, the directory, is missing")
		}
		if l.Digest != "" {
			err = l.Digest.Validate()
		}
		return &cache.Source{Layout: l}, err
	}
	return nil, errors.New("the records are in the image: name it, as type=registry,ref=IMAGE")
}

// ParseTo parses a value of --cache-to.
func ParseTo(spec string) (*cache.Target, error) {
	values, err := parse(spec)
	if err != nil {
		return nil, err
	}
	t := &cache.Target{}
	common := []string{
		"mode", "compression", "compression-level", "force-compression", "image-manifest", "oci-mediatypes", "ignore-error",
		mounts,
	}
	switch values["type"] {
	case "inline":
		t.Inline = true
		return t, onlyFields(values)
	case "registry":
		if err := onlyFields(values, append(common, "ref")...); err != nil {
			return nil, err
		}
		if t.Ref = values["ref"]; strings.Contains(t.Ref, "@") {
			return nil, errors.New("ref: the digest is the cache's, leave it out")
		}
		err = checkRef(t.Ref)
	case "local":
		if err := onlyFields(values, append(common, "dest", "tag")...); err != nil {
			return nil, err
		}
		if t.Dir, t.Tag = values["dest"], "latest"; t.Dir == "" {
			return nil, errors.New("dest, the directory, is missing")
		}
		if tag := values["tag"]; tag != "" {
			t.Tag = tag
		}
		err = checkRef("cache:" + t.Tag)
	}
	if err != nil {
		return nil, err
	}
	return t, setCommon(t, values)
}

func checkRef(ref string) error {
	if ref == "" {
		return errors.New("ref is missing")
	}
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// setCommon sets what registries and directories have in common.
func setCommon(t *cache.Target, values map[string]string) error {
	switch mode := values["mode"]; mode {
	case "", "min":
	case "max":
		t.Max = true
	default:
		return fmt.Errorf("mode=%s: want min or max", mode)
	}
	if value, ok := values[mounts]; ok {
		if t.Mounts = strings.Split(value, "\n"); slices.Contains(t.Mounts, "") {
			return errors.New("mounts: want the ID of a cache mount")
		}
	}
	var format image.Format
	for _, name := range []string{"compression", "compression-level"} {
		if value, ok := values[name]; ok {
			if err := output.SetField(&format, name, value); err != nil {
				return err
			}
			t.Compression = &format.Compression
		}
	}
	if err := (&executor.Options{Format: format, Report: true}).Check(nil); err != nil {
		return err
	}
	for _, fixed := range [][2]string{
		{"force-compression", "all layers of a cache are compressed in the same way"},
		{"image-manifest", "a cache is an image manifest"},
		{"oci-mediatypes", "a cache has OCI media types"},
	} {
		if value, ok := values[fixed[0]]; ok {
			if on, err := cli.Bool(value); err != nil || !on {
				return fmt.Errorf("%s=%s: %s", fixed[0], value, fixed[1])
			}
		}
	}
	if value, ok := values["ignore-error"]; ok {
		var err error
		t.IgnoreError, err = cli.Bool(value)
		return err
	}
	return nil
}
