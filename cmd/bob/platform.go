package main

import (
	"slices"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platformList returns the platforms of the values of --platform, each once, and
// whether there are any; otherwise it is the platform of this machine.
func platformList(values []string) (all []ocispec.Platform, given bool, err error) {
	for _, names := range values {
		for name := range strings.SplitSeq(names, ",") {
			p, err := parsePlatform(strings.TrimSpace(name))
			if err != nil {
				return nil, false, cli.About("platform", names, err)
			}
			if !slices.ContainsFunc(all, func(q ocispec.Platform) bool { return platforms.FormatAll(q) == platforms.FormatAll(p) }) {
				all = append(all, p)
			}
		}
	}
	if len(all) > 0 {
		return all, true, nil
	}
	return []ocispec.Platform{thisPlatform()}, false, nil
}

func thisPlatform() ocispec.Platform { return platforms.Normalize(platforms.DefaultSpec()) }

// parsePlatform parses a value of --platform; "local" is the platform of this machine.
func parsePlatform(s string) (ocispec.Platform, error) {
	if s == "local" {
		return thisPlatform(), nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return p, cli.Wrong("platform", s, "%v", err)
	}
	return platforms.Normalize(p), nil
}

// optionalPlatform parses a --platform that may be left out. It returns nil then, which
// stands for any platform.
func optionalPlatform(s cli.Text) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := parsePlatform(string(s))
	return &p, err
}
