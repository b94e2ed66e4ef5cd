package registry

import "github.com/bobbuild/bob/registry/internal/reference"

// For tests of what has no effect of its own to be seen from outside.
var (
	UploadOffset = uploadOffset
)

// PullSites are where ref is looked for, in words.
func PullSites(c *Conf, ref string) ([]string, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return nil, err
	}
	sites, err := c.pullSites(parsed)
	var words []string
	for _, at := range sites {
		text := reference.String(at.ref)
		if at.insecure {
			text += " insecure"
		}
		if at.mirror {
			text += " mirror"
		}
		words = append(words, text)
	}
	return words, err
}
