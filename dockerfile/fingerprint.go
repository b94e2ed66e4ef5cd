package dockerfile

import (
	"fmt"
	"maps"

	"github.com/opencontainers/go-digest"
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
	// Quoted strings can't run into one another; maps are written sorted.
	return digest.FromString(fmt.Sprintf("v1 %q %q %q %q %q %q %t %q %q",
		f.text, o.Target, args, o.Labels, o.TargetPlatform, o.BuildPlatform, o.PlatformGiven, o.Contexts, epoch))
}
