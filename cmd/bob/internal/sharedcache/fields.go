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
	"github.com/distribution/reference"
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
	return values, nil
}

// onlyFields refuses fields that a cache of the type doesn't have.
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

func checkRef(ref string) error {
	if ref == "" {
		return errors.New("ref is missing")
	}
	if _, err := reference.ParseNormalizedNamed(ref); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// common returns the fields that registries and directories have in common, and more.
func common(more ...string) []string {
	return append([]string{
		"mode", "compression", "compression-level", "force-compression", "image-manifest", "oci-mediatypes", "ignore-error", mounts,
	}, more...)
}

// setCommon sets the values of the fields of common.
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
