package fetch_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/fetch"
)

func TestReferences(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	first := h.create("r", map[string]string{"file": "first"})
	h.git("r", "tag", "light")
	h.git("r", "tag", "-a", "-m", "x", "heavy")
	h.git("r", "update-ref", "refs/pull/7/head", "HEAD")
	h.git("r", "branch", "same")
	second := h.commit("r", map[string]string{"file": "second"})
	h.git("r", "tag", "same")
	tag := h.git("r", "rev-parse", "heavy")

	tests := []struct {
		name string
		r    fetch.Repository
		want string // the content of file, or a part of the error
	}{
		{"default branch", fetch.Repository{}, "second"},
		{"branch", fetch.Repository{Ref: "main"}, "second"},
		{"full branch", fetch.Repository{Ref: "refs/heads/main"}, "second"},
		{"tag", fetch.Repository{Ref: "light"}, "first"},
		{"annotated tag", fetch.Repository{Ref: "heavy"}, "first"},
		{"full tag", fetch.Repository{Ref: "refs/tags/heavy"}, "first"},
		{"branch before tag", fetch.Repository{Ref: "same"}, "first"},
		{"pull request", fetch.Repository{Ref: "refs/pull/7/head"}, "first"},
		{"short pull request", fetch.Repository{Ref: "pull/7/head"}, "first"},
		{"commit at a tip", fetch.Repository{Ref: second}, "second"},
		{"older commit", fetch.Repository{Ref: first}, "first"},
		{"no reference", fetch.Repository{Ref: "nowhere"}, "repository does not contain ref nowhere"},
		{"no commit", fetch.Repository{Ref: strings.Repeat("1", 40)}, "1111"},
		{"option", fetch.Repository{Ref: "--upload-pack=x"}, "invalid git ref"},
		{"checksum", fetch.Repository{Checksum: second}, "second"},
		{"checksum prefix", fetch.Repository{Checksum: second[:7]}, "second"},
		{"checksum of the commit of a tag", fetch.Repository{Ref: "heavy", Checksum: first}, "first"},
		{"checksum of a tag", fetch.Repository{Ref: "heavy", Checksum: tag}, "first"},
		{"wrong checksum", fetch.Repository{Checksum: first}, "expected checksum to match " + first + ", got " + second},
		{"wrong checksum of a tag", fetch.Repository{Ref: "heavy", Checksum: second}, "got " + tag + " or " + first},
		{"wrong checksum of a commit", fetch.Repository{Ref: second, Checksum: first}, "expected checksum to match " + first},
		{"not a checksum", fetch.Repository{Checksum: "x"}, "invalid checksum x"},
		{"fetch by commit", fetch.Repository{Ref: "main", Checksum: first, FetchByCommit: true}, "first"},
		{"fetch by commit without one", fetch.Repository{Ref: "main", FetchByCommit: true}, "requires a checksum"},
		{"SHA-256", fetch.Repository{Ref: strings.Repeat("1", 64)}, "SHA-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.r.Remote = h.remote("r")
			dir, err := checkout(t, tt.r)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
			} else if got := read(t, dir, "file"); got != tt.want {
				t.Errorf("file is %q, want %q", got, tt.want)
			}
			if _, err := os.Lstat(filepath.Join(dir, ".git")); dir != "" && err == nil {
				t.Error(".git is there")
			}
		})
	}
}

func TestModesAndTimes(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("r", map[string]string{"plain": "1", "dir/run": "2"})
	if err := os.Symlink("/etc/passwd", filepath.Join(h.dir, "r", "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(h.dir, "r", "dir/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.commit("r", nil)
	dir := mustCheckout(t, fetch.Repository{Remote: h.remote("r"), CommitTime: true})
	when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for name, mode := range map[string]os.FileMode{
		"plain": 0o644, "dir/run": 0o755, "dir": os.ModeDir | 0o755, "link": os.ModeSymlink | 0o777,
	} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != mode || !fi.ModTime().Equal(when) {
			t.Errorf("%s: %v of %v, want %v of %v", name, fi.Mode(), fi.ModTime(), mode, when)
		}
	}
	if got, err := newClient(t).CommitTime(t.Context(), fetch.Repository{Remote: h.remote("r")}); err != nil || !got.Equal(when) {
		t.Errorf("time of the commit: %v, %v", got, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "link")); target != "/etc/passwd" {
		t.Errorf("link leads to %q, %v", target, err)
	}
}

func TestSubdir(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("r", map[string]string{"a/b/file": "deep", "file": "top"})
	if err := os.Symlink("a", filepath.Join(h.dir, "r", "link")); err != nil {
		t.Fatal(err)
	}
	h.commit("r", nil)
	for subdir, want := range map[string]string{
		"a/b": "deep", "/a/./b/": "deep", "../a/b": "deep", "": "top",
		"link/b": `"link" is not a directory`, "a/x": `there is no "a/x"`, "file": `"file" is not a directory`,
	} {
		dir, err := checkout(t, fetch.Repository{Remote: h.remote("r"), Subdir: subdir, KeepGitDir: subdir != ""})
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("subdir %q: got %v, want %q", subdir, err, want)
			}
		} else if got := read(t, dir, "file"); got != want {
			t.Errorf("subdir %q: got %q, want %q", subdir, got, want)
		}
	}
}

func TestKeepGitDir(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("sub", map[string]string{"lib": "lib"})
	h.create("r", map[string]string{"file": "1", "dir/file": "2"})
	h.git("r", "-c", "protocol.file.allow=always", "submodule", "add", "-q", h.dir+"/sub/.git", "mod")
	h.git("r", "config", "-f", ".gitmodules", "submodule.mod.url", "../../sub/.git")
	commit := h.commit("r", nil)
	h.git("r", "tag", "-a", "-m", "x", "v1")
	for _, ref := range []string{"", "v1", commit} {
		dir := mustCheckout(t, fetch.Repository{Remote: strings.Replace(h.remote("r"), "://", "://user:secret@", 1), Ref: ref, KeepGitDir: true})
		git := func(args ...string) string {
			cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "safe.directory=*"}, args...)...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("ref %q: git %q: %v\n%s", ref, args, err, out)
			}
			return strings.TrimSpace(string(out))
		}
		if got := git("rev-parse", "HEAD"); got != commit {
			t.Errorf("ref %q: HEAD is %q, want %q", ref, got, commit)
		}
		if got := git("status", "--porcelain"); got != "" {
			t.Errorf("ref %q: the tree differs:\n%s", ref, got)
		}
		if got := git("remote", "get-url", "origin"); got != h.remote("r") {
			t.Errorf("ref %q: origin is %q", ref, got)
		}
		if got := git("-C", "mod", "log", "--oneline"); !strings.HasSuffix(got, " work") {
			t.Errorf("ref %q: the submodule has %q", ref, got)
		}
		if got := git("log", "--oneline"); strings.Contains(got, "\n") {
			t.Errorf("ref %q: more history than one commit:\n%s", ref, got)
		}
	}
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("inner", map[string]string{"deep/file": "inner"})
	h.create("outer", map[string]string{"file": "outer"})
	h.git("outer", "-c", "protocol.file.allow=always", "submodule", "add", "-q", h.dir+"/inner/.git", "in")
	h.git("outer", "config", "-f", ".gitmodules", "submodule.in.url", "../../inner/.git")
	h.commit("outer", nil)
	h.create("r", map[string]string{"file": "top"})
	h.git("r", "-c", "protocol.file.allow=always", "submodule", "add", "-q", h.dir+"/outer/.git", "path/out")
	h.git("r", "config", "-f", ".gitmodules", "submodule.path/out.url", "../../outer/.git")
	h.commit("r", nil)

	dir := mustCheckout(t, fetch.Repository{Remote: h.remote("r")})
	if got := read(t, dir, "path/out/file") + read(t, dir, "path/out/in/deep/file"); got != "outerinner" {
		t.Errorf("submodules hold %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "path/out/.git")); err == nil {
		t.Error("a file .git that leads nowhere")
	}
	dir = mustCheckout(t, fetch.Repository{Remote: h.remote("r"), Subdir: "path/out/in/deep"})
	if got := read(t, dir, "file"); got != "inner" {
		t.Errorf("the subdirectory in a submodule holds %q", got)
	}
	dir = mustCheckout(t, fetch.Repository{Remote: h.remote("r"), SkipSubmodules: true})
	if names, err := os.ReadDir(filepath.Join(dir, "path/out")); err != nil || len(names) > 0 {
		t.Errorf("a skipped submodule holds %v, %v", names, err)
	}
}

// Whatever a repository holds, nothing is written outside of its directory, and
// nothing of this machine is read.
func TestHostileRepositories(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("r", map[string]string{"file": "1"})
	blob := h.git("r", "rev-parse", "HEAD:file")
	link := pipe(t, h, "r", "/tmp", "hash-object", "-w", "--stdin")
	tree := func(lines ...string) string {
		return pipe(t, h, "r", strings.Join(lines, "\n")+"\n", "mktree", "--missing")
	}
	plain := tree("100644 blob " + blob + "\tfile")
	modules := func(url, path string) string {
		text := "[submodule \"s\"]\n\tpath = " + path + "\n\turl = " + url + "\n"
		return pipe(t, h, "r", text, "hash-object", "-w", "--stdin")
	}
	gitlink := "160000 commit " + strings.Repeat("1", 40) + "\tmod"
	raw := func(entries string) string {
		return pipe(t, h, "r", entries, "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
	}
	id := func(hash string) string { return string(bytesOf(t, hash)) }

	for name, tt := range map[string]struct{ tree, want string }{
		"dot git":              {raw("40000 .git\x00" + id(plain)), "invalid path"},
		"dot git in a subtree": {tree("040000 tree " + raw("40000 .GIT\x00"+id(plain)) + "\tsub"), "invalid path"},
		"short name":           {raw("40000 git~1\x00" + id(plain)), "invalid path"},
		"ignored character":    {raw("40000 .g\u200cit\x00" + id(plain)), "invalid path"},
		"up":                   {raw("40000 ..\x00" + id(plain)), "invalid path"},
		"slash":                {raw("100644 ../escaped\x00" + id(blob)), "invalid path"},
		"link and directory":   {raw("120000 a\x00" + id(link) + "40000 a\x00" + id(plain)), "file exists"},
		"twice":                {raw("100644 a\x00" + id(blob) + "100644 a\x00" + id(blob)), "file exists"},
		"undeclared module":    {tree(gitlink), "no url found"},
		"local module":         {tree("100644 blob "+modules("file://"+h.dir+"/r", "mod")+"\t.gitmodules", gitlink), `protocol "file" is not allowed`},
		"path module":          {tree("100644 blob "+modules(h.dir+"/r", "mod")+"\t.gitmodules", gitlink), `protocol "file" is not allowed`},
		"program module":       {tree("100644 blob "+modules("ext::sh -c true", "mod")+"\t.gitmodules", gitlink), "submodule"},
		"relative module":      {tree("100644 blob "+modules("../../../../../x", "mod")+"\t.gitmodules", gitlink), "leads out of"},
	} {
		h.git("r", "update-ref", "refs/heads/x"+strings.ReplaceAll(name, " ", ""), h.git("r", "commit-tree", "-m", "x", tt.tree))
		dir, err := checkout(t, fetch.Repository{Remote: h.remote("r"), Ref: "x" + strings.ReplaceAll(name, " ", "")})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q", name, err, tt.want)
		}
		if _, err := os.Lstat(filepath.Join(dir, "../escaped")); dir != "" && err == nil {
			t.Errorf("%s: a file outside", name)
		}
	}
	for _, remote := range []string{"file://" + h.dir + "/r", h.dir + "/r", "ext::sh -c true"} {
		if _, err := checkout(t, fetch.Repository{Remote: remote}); err == nil {
			t.Errorf("remote %q was taken", remote)
		}
	}
}
