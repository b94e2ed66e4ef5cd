package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// namedContext is an entry of [Options.Contexts].
type namedContext struct {
	key   string // as in the options
	image string // normalised, "" unless it is an image
	empty bool   // scratch
}

// namedContexts are the named contexts by the familiar form of their names:
// "alpine" also for docker.io/library/alpine:latest, with "::" and a platform
// behind it where only that is meant.
type namedContexts map[string]*namedContext

func newNamedContexts(options map[string]Context) (namedContexts, error) {
	all := namedContexts{}
	for _, key := range slices.Sorted(maps.Keys(options)) {
		word, platform, limited := strings.Cut(key, "::")
		name, err := familiar(word)
		if err != nil {
			return nil, fmt.Errorf("named context %q: %w", key, err)
		}
		if limited {
			p, err := platforms.Parse(platform)
			if err != nil {
				return nil, fmt.Errorf("named context %q: %w", key, err)
			}
			name += "::" + platforms.FormatAll(platforms.Normalize(p))
		}
		c := &namedContext{key: key}
		switch image := options[key].Image; image {
		case "":
		case "scratch":
			c.empty = true
		default:
			if c.image, err = normalise(image); err != nil {
				return nil, fmt.Errorf("named context %q: image %q: %w", key, image, err)
			}
		}
		all[name] = c
	}
	return all, nil
}

// find returns the context that takes the place of what name is otherwise, nil
// if there is none. The names scratch and context are never taken.
func (all namedContexts) find(name string, platform ocispec.Platform) (*namedContext, error) {
	if strings.EqualFold(name, "scratch") || strings.EqualFold(name, "context") {
		return nil, nil // no such context
	}
	short, err := familiar(name)
	if err != nil {
		return nil, fmt.Errorf("invalid context name %s: %w", name, err)
	}
	if c := all[short+"::"+platforms.FormatAll(platforms.Normalize(platform))]; c != nil {
		return c, nil
	}
	return all[short], nil
}
