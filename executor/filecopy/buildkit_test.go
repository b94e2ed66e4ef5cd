package filecopy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	continuity "github.com/containerd/continuity/fs"
	"github.com/moby/patternmatcher"
	fsutil "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// An instruction is a COPY or ADD of one source, as BuildKit's frontend and bob
// lower it.
type instruction struct {
	kind    string // "context", "stage", "add", "file" or "repository"
	source  string
	dest    string // absolute and clean but for a final "/" or "/."
	parents string // of --parents
	exclude []string
	chmod   string
	chown   *filecopy.Owner
}

func (i *instruction) String() string {
	return fmt.Sprintf("%s %q parents=%q exclude=%q chmod=%q chown=%v to %q", i.kind, i.source, i.parents, i.exclude, i.chmod, i.chown, i.dest)
}

// fetched says that the source isn't one that the Dockerfile names by a path.
func (i *instruction) fetched() bool { return i.kind == "file" || i.kind == "repository" }

// required says that what is named must be there.
func (i *instruction) required() bool { return !strings.ContainsAny(i.source+i.parents, `*?[`) }

// bob carries the instruction out as package executor does.
func (i *instruction) bob(ctx context.Context, src, root string) (err error) {
	tree, err := filecopy.OpenDir(src, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	source := filecopy.Source{Path: i.source, Parents: i.parents, Exclude: i.exclude}
	source.Required = i.parents != "" && i.required()
	switch i.kind {
	case "file":
		source.Path = "*"
	case "repository":
		source.Path, source.Itself = ".", true
	}
	s, err := tree.Select(ctx, source)
	if err != nil {
		return err
	}
	if _, err := s.DigestWithOwners(ctx); err != nil {
		return err
	}
	o := filecopy.Options{Owner: i.chown}
	if o.Owner == nil && i.kind != "stage" {
		o.Owner = &filecopy.Owner{}
	}
	if i.chmod != "" {
		if o.Mode, err = filecopy.ParseChmod(i.chmod); err != nil {
			return err
		}
	}
	if i.kind == "add" {
		o.Unpack = &filecopy.Unpack{
			IsArchive: func(header []byte) bool { return string(header) == packed },
			Extract: func(_ context.Context, root, dir string, _ io.Reader) error {
				return unpackArchive(filepath.Join(root, dir))
			},
		}
	}
	return s.CopyTo(ctx, root, i.dest, o)
}

// packed is the content of what stands for an archive.
const packed = "an archive"

func unpackArchive(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "unpacked"), nil, 0o644); err != nil {
		return err
	}
	return os.Chmod(dir, 0o751)
}

// buildkit carries the instruction out as solver/llbsolver/file does, with
// BuildKit's own copier. The sources have the owners that the transfer of a
// context gives them.
func (i *instruction) buildkit(ctx context.Context, src, root, scratch string) error {
	if _, err := patternmatcher.New(append(slices.Clone(i.exclude), i.parents)); err != nil {
		return err
	}
	if i.parents != "" && i.required() {
		// The cache key is made first, and only if these are there.
		if err := i.buildkitCopy(ctx, src, scratch, "/all"); err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(scratch, "all", i.parents)); err != nil {
			return err
		}
	}
	return i.buildkitCopy(ctx, src, root, i.dest)
}

func (i *instruction) buildkitCopy(ctx context.Context, src, root, dest string) error {
	chown := func(old *fsutil.User) (*fsutil.User, error) {
		if old == nil && i.kind != "stage" {
			// A directory made on the way. BuildKit leaves it to the kernel, which
			// gives it another group than 0 below a set-group-ID directory.
			return &fsutil.User{}, nil
		}
		return old, nil
	}
	if i.chown != nil {
		chown = func(*fsutil.User) (*fsutil.User, error) {
			return &fsutil.User{UID: int(i.chown.UID), GID: int(i.chown.GID)}, nil
		}
	}
	options := func(ci *fsutil.CopyInfo) {
		if i.parents != "" {
			ci.IncludePatterns = []string{strings.TrimPrefix(path.Join("/", i.parents), "/")}
		}
		ci.ExcludePatterns = i.exclude
		ci.Chown = chown
		var mode int
		if _, err := fmt.Sscanf(i.chmod, "%o", &mode); err == nil {
			ci.Mode = &mode
		} else {
			ci.ModeStr = i.chmod
		}
		ci.CopyDirContents, ci.FollowLinks = !i.fetched(), !i.fetched()
		ci.XAttrErrorHandler = func(string, string, string, error) error { return nil }
	}
	matches := []string{path.Join("/", i.source)}
	if !i.fetched() {
		var err error
		if matches, err = fsutil.ResolveWildcards(src, matches[0], true); err != nil {
			return err
		}
	}
	for _, m := range matches {
		if i.parents != "" && strings.ContainsAny(i.source, `*?[`) && isFile(src, m) {
			// BuildKit copies it though the pattern of --parents isn't about it:
			// neither do the context's transfer and the cache key know of it.
			continue
		}
		if i.kind == "add" {
			if done, err := buildkitUnpack(src, m, root, dest, chown); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		if err := fsutil.Copy(ctx, src, m, root, dest, options); err != nil {
			return err
		}
	}
	return nil
}

// isFile reports whether p leads to what is no directory.
func isFile(root, p string) bool {
	p, err := continuity.RootPath(root, p)
	if err != nil {
		return false
	}
	fi, err := os.Lstat(p)
	return err == nil && !fi.IsDir()
}

func buildkitUnpack(srcRoot, src, root, dest string, chown fsutil.Chowner) (bool, error) {
	src, err := continuity.RootPath(srcRoot, src)
	if err != nil {
		return false, err
	}
	var st unix.Stat_t
	if unix.Lstat(src, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, nil //nolint:nilerr // the copy itself fails
	}
	if content, err := os.ReadFile(src); err != nil || string(content) != packed {
		return false, err
	}
	if dest, err = continuity.RootPath(root, dest); err != nil {
		return false, err
	}
	if _, err := fsutil.MkdirAll(dest, 0o755, chown, nil); err != nil {
		return false, err
	}
	return true, unpackArchive(dest)
}

// A scene is two trees and what is copied from one to the other.
type scene struct {
	src, dst []*file
	do       instruction
}

func (s *scene) String() string {
	var b strings.Builder
	for _, f := range s.src {
		fmt.Fprintf(&b, "  source: %s\n", f)
	}
	for _, f := range s.dst {
		fmt.Fprintf(&b, "  image:  %s\n", f)
	}
	fmt.Fprintf(&b, "  %s\n", &s.do)
	return b.String()
}

// play carries the scene out in both ways and returns what differs.
func (s *scene) play(tb testing.TB, dir string) string {
	tb.Helper()
	defer func() { must(tb, os.RemoveAll(dir)) }()
	must(tb, os.Mkdir(dir, 0o755))
	at := func(name string) string { return filepath.Join(dir, name) }
	owners := s.do.kind == "stage"
	plant(tb, at("src"), s.src, true, owners)
	// bob leaves sockets out, of which BuildKit makes empty files.
	plant(tb, at("plain"), s.src, false, owners)
	plant(tb, at("bob"), s.dst, true, true)
	plant(tb, at("buildkit"), s.dst, true, true)
	must(tb, os.Mkdir(at("scratch"), 0o755))
	got := s.do.bob(tb.Context(), at("src"), at("bob"))
	want := s.do.buildkit(tb.Context(), at("plain"), at("buildkit"), at("scratch"))
	if s.excused(got, want) || got != nil && want != nil {
		return ""
	}
	if got != nil || want != nil {
		return fmt.Sprintf("  bob says %v, BuildKit %v\n", got, want)
	}
	bob, buildkit := portrait(tb, at("bob")), portrait(tb, at("buildkit"))
	var diff strings.Builder
	for p, line := range bob {
		before, after, free := strings.Cut(buildkit[p], ofRoot)
		if same := free && strings.HasPrefix(line, before) && strings.HasSuffix(line, after); !same && line != buildkit[p] {
			fmt.Fprintf(&diff, "  %q: bob makes %q, BuildKit %q\n", p, line, buildkit[p])
		}
	}
	for p, line := range buildkit {
		if bob[p] == "" {
			fmt.Fprintf(&diff, "  %q: bob makes nothing, BuildKit %q\n", p, line)
		}
	}
	return diff.String()
}

// excused reports whether bob differs on purpose.
func (s *scene) excused(got, want error) bool {
	links := 0
	for _, f := range s.dst {
		if f.kind == "symlink" {
			links++
		}
	}
	for _, f := range slices.Concat(s.src, s.dst) {
		// BuildKit takes "x/.." out of a link without looking what x is.
		if f.kind == "symlink" && strings.HasSuffix(f.target, "/../b") {
			return true
		}
		// Without the socket BuildKit finds nothing to look into.
		if f.kind == "socket" && got == nil && want != nil {
			return true
		}
	}
	// Of a destination ending in "/." BuildKit takes a link that a link leads to
	// as if it were relative to itself.
	if strings.HasSuffix(s.do.dest, "/.") && links > 1 {
		return true
	}
	// BuildKit looks for the destination even of a directory that isn't copied.
	return got == nil && errors.Is(want, unix.ENOTDIR) && (s.do.parents != "" || s.do.exclude != nil)
}

// shrink leaves out of the scene what it doesn't take to make a difference.
func (s *scene) shrink(tb testing.TB, dir string) {
	tb.Helper()
	for _, files := range []*[]*file{&s.src, &s.dst} {
		if s.do.kind == "file" && files == &s.src {
			continue
		}
		for i := range slices.Backward(*files) {
			all := *files
			*files = slices.Delete(slices.Clone(all), i, i+1)
			if s.play(tb, dir) == "" {
				*files = all
			}
		}
	}
}

// check plays the scene made of data, and shows a small one if it differs.
func check(tb testing.TB, data []byte, dir string) {
	tb.Helper()
	c := choices(data)
	s := c.scene()
	if s.play(tb, dir) != "" {
		s.shrink(tb, dir)
		tb.Errorf("%s%s", s, s.play(tb, dir))
	}
}

// scenes is how many random scenes the tests play.
const scenes = 400

// seed returns the bytes of the n-th scene.
func seed(n int) []byte {
	data := make([]byte, 400)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(data)
	return data
}

// TestAsBuildKit copies random trees in random ways into random trees, and
// expects what BuildKit's own code makes of them.
func TestAsBuildKit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), "scene")
	for n := range scenes {
		check(t, seed(n), dir)
	}
}

// FuzzCopy looks for a scene that ends otherwise than with BuildKit.
func FuzzCopy(f *testing.F) {
	needRoot(f)
	for n := range 100 {
		f.Add(seed(n))
	}
	f.Fuzz(func(t *testing.T, data []byte) { check(t, data, filepath.Join(t.TempDir(), "scene")) })
}

// TestInUserNamespace runs the tests that need root as the root of a user
// namespace, as bob is for an ordinary user.
func TestInUserNamespace(t *testing.T) {
	needRoot(t)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 1 << 24, Size: 1 << 22}}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.count=1", "-test.skip=^Test(InUserNamespace|Unprivileged)$")
	cmd.Env = append(os.Environ(), "TMPDIR=/tmp", "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("user namespaces are not allowed here:", err)
	}
	if err != nil {
		t.Errorf("in the user namespace: %v\n%s", err, out)
	}
}
