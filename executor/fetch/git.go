package fetch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/containers/storage/pkg/regexp"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Repository names a tree of a git repository.
type Repository struct {
	Remote         string // URL, or user@host:path
	Ref            string // branch, tag, full reference or commit; "" is the remote's HEAD
	Checksum       string // hexadecimal digits that the commit's hash must begin with; "" if any will do
	Subdir         string // relative to the root of the tree, "" is the root
	KeepGitDir     bool   // the directory .git is part of the result, unless Subdir is set
	SkipSubmodules bool
	CommitTime     bool // files have the commit's time and not that of the checkout
	FetchByCommit  bool // Checksum is fetched without asking what Ref means
}

// Commit is what the Ref of a Repository stands for.
type Commit struct {
	Ref    string // in full, "" if the commit was named by its hash
	Hash   string // of the object: a commit, or a tag
	Peeled string // the commit that a tag leads to; "" if Hash is one, or where that isn't known yet
}

// Key identifies the tree that r is at c: equal keys are equal files.
func (r *Repository) Key(c *Commit) string {
	id := c.Hash
	if c.Peeled != "" && !r.KeepGitDir {
		id = c.Peeled
	}
	ref := ""
	if r.KeepGitDir {
		ref = Redact(r.Remote) + " " + c.Ref
	}
	return fmt.Sprintf("%s %q %q %t %t %t", id, ref, r.subdir(), r.keeps(), r.SkipSubmodules, r.CommitTime)
}

// subdir returns the path of the directory wanted, "" for the root.
func (r *Repository) subdir() string {
	var parts []string
	for part := range strings.SplitSeq(r.Subdir, "/") {
		switch part {
		case "", ".":
		case "..":
			parts = parts[:max(0, len(parts)-1)]
		default:
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// keeps reports whether .git is part of the result.
func (r *Repository) keeps() bool { return r.KeepGitDir && r.subdir() == "" }

var (
	commitPattern   = regexp.Delayed(`^[a-f0-9]{40}$`)
	commit256       = regexp.Delayed(`^[a-f0-9]{64}$`)
	checksumPattern = regexp.Delayed(`^[a-fA-F0-9]+$`)
)

var errSHA256 = errors.New("repositories with SHA-256 objects are not supported: name a commit or repository with SHA-1")

// Resolve finds out what r's Ref stands for. It costs one request for the
// remote's references, and none at all where a commit is named by its full hash.
func (c *Client) Resolve(ctx context.Context, r Repository) (*Commit, error) {
	at, err := c.resolve(ctx, r)
	if err != nil {
		return nil, c.gitError(ctx, "resolve", r.Remote, err)
	}
	return at, nil
}

func (c *Client) resolve(ctx context.Context, r Repository) (*Commit, error) {
	if err := checkRemote(r.Remote); err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.Ref, "-") {
		return nil, fmt.Errorf("invalid git ref %q", r.Ref)
	}
	if r.Checksum != "" && !checksumPattern.MatchString(r.Checksum) {
		return nil, fmt.Errorf("invalid checksum %s for Git URL, expected hex commit hash", r.Checksum)
	}
	switch {
	case commit256.MatchString(r.Ref), commit256.MatchString(r.Checksum):
		return nil, errSHA256
	case commitPattern.MatchString(r.Ref):
		if !strings.HasPrefix(r.Ref, r.Checksum) {
			return nil, checksumError(r.Checksum, r.Ref)
		}
		return &Commit{Hash: r.Ref}, nil
	case r.FetchByCommit && r.Checksum == "":
		return nil, errors.New("fetch-by-commit requires a checksum or a commit SHA ref")
	case r.FetchByCommit && !commitPattern.MatchString(r.Checksum):
		return nil, fmt.Errorf("fetch-by-commit requires a full commit SHA checksum, got %q", r.Checksum)
	case r.FetchByCommit:
		// A name that isn't qualified is taken for a branch's.
		ref := r.Ref
		if ref != "" && !strings.HasPrefix(ref, "refs/") {
			ref = "refs/heads/" + ref
		}
		return &Commit{Ref: ref, Hash: r.Checksum}, nil
	}
	refs, err := c.list(ctx, r.Remote)
	if err != nil {
		return nil, err
	}
	at, err := pick(refs, r.Ref)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(at.Hash, r.Checksum) && (at.Peeled == "" || !strings.HasPrefix(at.Peeled, r.Checksum)) {
		return nil, checksumError(r.Checksum, at.Hash, at.Peeled)
	}
	return at, nil
}

// checksumError says it in BuildKit's words.
func checksumError(want string, got ...string) error {
	if got[len(got)-1] == "" {
		got = got[:len(got)-1]
	}
	return fmt.Errorf("expected checksum to match %s, got %s", want, strings.Join(got, " or "))
}

// list returns the references of the remote, with what tags lead to as NAME^{}.
func (c *Client) list(ctx context.Context, remote string) (map[string]*plumbing.Reference, error) {
	auth, address, err := c.auth(ctx, remote, remote)
	if err != nil {
		return nil, err
	}
	found, err := askGit(ctx, c, remote, func(ctx context.Context, dog *patience.Watchdog) ([]*plumbing.Reference, error) {
		rem := git.NewRemote(memory.NewStorage(), &config.RemoteConfig{Name: "origin", URLs: []string{address}})
		return rem.ListContext(listed(ctx, address, dog), &git.ListOptions{Auth: auth, PeelingOption: git.AppendPeeled, CABundle: c.o.CABundle})
	})
	if err != nil {
		return nil, err
	}
	refs := make(map[string]*plumbing.Reference, len(found))
	for _, ref := range found {
		refs[ref.Name().String()] = ref
	}
	return refs, nil
}

// pick finds name among refs in BuildKit's order.
func pick(refs map[string]*plumbing.Reference, name string) (*Commit, error) {
	if name == "" {
		head := refs["HEAD"]
		if head == nil || head.Type() != plumbing.SymbolicReference || !head.Target().IsBranch() {
			return nil, errors.New("could not find default branch for repository: name a branch, a tag or a commit")
		}
		name = head.Target().String()
	}
	candidates := []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	}
	for _, full := range candidates {
		ref := refs[full]
		if ref == nil || ref.Type() != plumbing.HashReference {
			continue
		}
		at := &Commit{Ref: full, Hash: ref.Hash().String()}
		if peeled := refs[full+"^{}"]; peeled != nil && strings.HasPrefix(full, "refs/tags/") {
			at.Peeled = peeled.Hash().String()
		}
		return at, nil
	}
	return nil, fmt.Errorf("repository does not contain ref %s", name)
}

// gitError names the remote and keeps credentials out.
func (c *Client) gitError(ctx context.Context, op, remote string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	text := bare(err).Error()
	for _, secret := range secretsOf(remote) {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return &gitError{text: fmt.Sprintf("%s git repository %s: %s", op, Redact(remote), text), err: err}
}

type gitError struct {
	text string
	err  error
}

func (e *gitError) Error() string { return e.text }
func (e *gitError) Unwrap() error { return e.err }
