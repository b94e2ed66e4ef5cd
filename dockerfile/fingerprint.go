package dockerfile

import (
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fingerprint returns a digest of all that decides about a plan and its steps:
// the text of the file and the options. What the text names by address (base
// images, URLs, repositories) counts as it is written. The predefined proxy
// arguments and Ignore don't count, nor does the name of the file.
func (f *File) Fingerprint(o Options) digest.Digest {
	args := maps.Clone(o.BuildArgs)
	maps.DeleteFunc(args, func(key, _ string) bool { return isProxy(key) })
	epoch := ""
	if o.SourceEpoch != nil {
		epoch = o.SourceEpoch.UTC().String()
	}
	contexts := make(map[string]string, len(o.Contexts))
	for name, c := range o.Contexts {
		contexts[name] = c.Image
	}
	// Quoted strings can't run into one another; maps are written sorted.
	return digest.FromString(fmt.Sprintf("v2 %q %q %q %q %q %q %t %q %q", f.text, o.Target, args, o.Labels,
		platformFields(o.TargetPlatform), platformFields(o.BuildPlatform), o.PlatformGiven, contexts, epoch))
}

// platformFields returns all that tells p from others.
func platformFields(p ocispec.Platform) []string {
	return append([]string{p.OS, p.Architecture, p.Variant, p.OSVersion}, p.OSFeatures...)
}
