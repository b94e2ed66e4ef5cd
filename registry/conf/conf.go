// Package conf reads registries.conf, which says where images are got from in place of
// the registries that their names tell, and which registries are insecure or blocked.
//
// It follows a subset of containers-registries.conf(5), version 2.
package conf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/google/go-containerregistry/pkg/name"
)

// Rules are what registries.conf files say of registries. nil says
// nothing.
type Rules struct {
	// Ignored are settings that bob doesn't follow, a sentence each.
	Ignored []string

	// Searches is the file whose search list begins with another registry than Docker
	// Hub, "" if no file has such a list. bob doesn't follow the list.
	Searches string

	rules []rule
}

// rule is one [[registry]].
type rule struct {
	Prefix       string   `toml:"prefix"`
	Location     string   `toml:"location"`
	Insecure     bool     `toml:"insecure"`
	Blocked      bool     `toml:"blocked"`
	ByDigestOnly bool     `toml:"mirror-by-digest-only"`
	Mirrors      []mirror `toml:"mirror"`

	file string
}

// mirror is one [[registry.mirror]].
type mirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	Pulls    string `toml:"pull-from-mirror"`
}

// Read reads registries.conf files. A [[registry]] of a later one replaces
// that with the same prefix of an earlier one.
func Read(ctx context.Context, paths ...string) (*Rules, error) {
	c := &Rules{}
	for _, path := range paths {
		if err := c.read(ctx, path); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, nil
}

func (c *Rules) read(ctx context.Context, path string) error {
	text, err := bounded.ReadFile(ctx, path, maxFile)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err // the caller names the path
	}
	if err != nil {
		return err
	}
	var file struct {
		Rules   []rule            `toml:"registry"`
		Search  []string          `toml:"unqualified-search-registries"`
		Helpers []string          `toml:"credential-helpers"`
		Short   string            `toml:"short-name-mode"`
		Aliases map[string]string `toml:"aliases"`
		Version any               `toml:"registries"` // of version 1
	}
	meta, err := toml.Decode(string(text), &file)
	if syntax, ok := errors.AsType[toml.ParseError](err); ok {
		return fmt.Errorf("line %d: %s", syntax.Position.Line, syntax.Message)
	}
	if err != nil {
		return err
	}
	if file.Version != nil {
		return errors.New("this is version 1 of the format; write [[registry]] tables, see containers-registries.conf(5)")
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("unknown setting %q; bob knows prefix, location, insecure, blocked, mirror-by-digest-only "+
			"and mirror (location, insecure, pull-from-mirror) of a registry", unknown[0].String())
	}
	if len(file.Search) > 0 {
		c.Searches = ""
		if file.Search[0] != reference.Hub {
			c.Searches = path
		}
	}
	if helpers := slices.DeleteFunc(file.Helpers, func(h string) bool { return h == "containers-auth.json" }); len(helpers) > 0 {
		c.Ignored = append(c.Ignored, path+": credential-helpers is not followed; name helpers in the credHelpers of docker's config.json or containers' auth.json")
	}
	for i, r := range file.Rules {
		r.file = path
		if err := r.complete(); err != nil {
			return fmt.Errorf("[[registry]] %d: %w", i+1, err)
		}
		c.rules = slices.DeleteFunc(c.rules, func(old rule) bool { return old.Prefix == r.Prefix })
		c.rules = append(c.rules, r)
	}
	return nil
}

// complete checks the rule and fills in what it leaves out.
func (r *rule) complete() error {
	if r.Prefix == "" {
		r.Prefix = r.Location
	}
	if r.Prefix == "" {
		return errors.New("it has neither prefix nor location")
	}
	wildcard := strings.HasPrefix(r.Prefix, "*.")
	if r.Location == "" && !wildcard {
		r.Location = r.Prefix
	}
	places := []*string{&r.Prefix, &r.Location}
	for i := range r.Mirrors {
		m := &r.Mirrors[i]
		if m.Location == "" {
			return fmt.Errorf("mirror %d of %s has no location", i+1, r.Prefix)
		}
		switch m.Pulls {
		case "", "all", "digest-only", "tag-only":
		default:
			return fmt.Errorf("mirror %s: pull-from-mirror is all, digest-only or tag-only, not %q", m.Location, m.Pulls)
		}
		places = append(places, &m.Location)
	}
	for _, p := range places {
		*p = strings.TrimRight(*p, "/")
		if strings.Contains(*p, "://") {
			return fmt.Errorf("%s: write it without a scheme", words.Redact(*p))
		}
		// References that begin otherwise are Docker Hub's.
		if host, _, _ := strings.Cut(*p, "/"); *p != "" && !strings.ContainsAny(host, ".:") && host != "localhost" {
			return fmt.Errorf("%s: %q isn't the name of a host", *p, host)
		}
	}
	return nil
}

// matched returns how much of ref the rule's prefix stands for, 0 if it isn't
// meant.
func (r *rule) matched(ref string) int {
	if domain, ok := strings.CutPrefix(r.Prefix, "*"); ok && strings.HasPrefix(domain, ".") {
		host, _, _ := strings.Cut(ref, "/")
		if strings.HasSuffix(host, domain) && len(host) > len(domain) {
			return len(host)
		}
		return 0
	}
	rest, ok := strings.CutPrefix(ref, r.Prefix)
	ends := "/"
	if strings.Contains(r.Prefix, "/") {
		ends = "/:@" // else a colon begins a port
	}
	if ok && (rest == "" || strings.ContainsAny(rest[:1], ends)) {
		return len(r.Prefix)
	}
	return 0
}

// rule returns the rule with the longest prefix that ref begins with, and how long the
// beginning is. It is nil if no rule is about ref.
func (c *Rules) rule(ref string) (best *rule, length int) {
	if c == nil {
		return nil, 0
	}
	for i := range c.rules {
		r := &c.rules[i]
		if n := r.matched(ref); n > 0 && (best == nil || r.weight() > best.weight()) {
			best, length = r, n
		}
	}
	return best, length
}

// weight orders the rules that a reference matches: a wildcard is less than any
// name that it covers.
func (r *rule) weight() int { return len(strings.TrimPrefix(r.Prefix, "*")) }

// A Site is where an image is got from or pushed to.
type Site struct {
	Ref      name.Reference
	Insecure bool // plain HTTP and any certificate will do
	Mirror   bool // there is another site behind it
}

// Host returns its host as people write it.
func (s Site) Host() string { return reference.Host(s.Ref.Context().Registry) }

// maxFile bounds a file of rules, in bytes.
const maxFile = 4 << 20

var errBlocked = errors.New("the registry is blocked")

// PushSite is where a push to ref goes: never to a mirror or another location.
func (c *Rules) PushSite(ref name.Reference) (Site, error) {
	r, _ := c.rule(reference.String(ref))
	if r == nil {
		return Site{Ref: ref}, nil
	}
	return Site{Ref: ref, Insecure: r.Insecure}, r.allow()
}

// PullSites are where ref is to be looked for: mirrors first, the registry
// itself last.
func (c *Rules) PullSites(ref name.Reference) ([]Site, error) {
	text := reference.String(ref)
	r, length := c.rule(text)
	if r == nil {
		return []Site{{Ref: ref}}, nil
	}
	if err := r.allow(); err != nil {
		return nil, err
	}
	_, byDigest := ref.(name.Digest)
	var sites []Site
	for _, m := range r.Mirrors {
		if (r.ByDigestOnly || m.Pulls == "digest-only") && !byDigest || m.Pulls == "tag-only" && byDigest {
			continue
		}
		at, err := relocated(m.Location, text[length:])
		if err != nil {
			return nil, fmt.Errorf("mirror %s in %s: %w", m.Location, r.file, err)
		}
		sites = append(sites, Site{Ref: at, Insecure: m.Insecure, Mirror: true})
	}
	if r.Location != "" {
		at, err := relocated(r.Location, text[length:])
		if err != nil {
			return nil, fmt.Errorf("location %s in %s: %w", r.Location, r.file, err)
		}
		ref = at
	}
	return append(sites, Site{Ref: ref, Insecure: r.Insecure}), nil
}

// relocated is the reference with location in the place of its beginning.
func relocated(location, rest string) (name.Reference, error) {
	if !strings.Contains(location+rest, "/") {
		return nil, errors.New("as the prefix is a whole repository, it has to be one too")
	}
	return reference.Parse(location + rest)
}

func (r *rule) allow() error {
	if !r.Blocked {
		return nil
	}
	return fmt.Errorf("%w by %q in %s; take another image, or change that file", errBlocked, r.Prefix, r.file)
}
