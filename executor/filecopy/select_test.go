package filecopy_test

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/filecopy"
)

// TestSelectAndPlace tables sources and destinations: what arrives where.
func TestSelectAndPlace(t *testing.T) {
	t.Parallel()
	context := []string{
		"a.txt", "b.txt", "[x].txt", "dir/one.txt", "dir/sub/two.txt", "dir/sub/deep/three.go", "other/four.txt", "other/five.go",
		"link.txt -> dir/one.txt", "absolute -> /dir/sub", "escape -> ../../../../etc", "dangling -> nowhere",
		"loop -> loop", "tree/inside -> ../a.txt", "tree/out -> /etc/passwd", "chain -> absolute",
		"fifo |", "empty/",
	}
	image := []string{
		"etc/os", "file", "etclink -> etc", "abslink -> /etc", "outlink -> ../../../../tmp", "newlink -> /made/later",
		"filelink -> file", "var/nested/x", "var/l -> nested", "back -> gone/../kept",
	}
	tests := []struct {
		name   string
		source string
		dest   string
		want   []string // new or changed paths
		err    string
	}{
		{"file to name", "a.txt", "/x", []string{"x=a.txt"}, ""},
		{"file to directory", "a.txt", "/x/", []string{"x/", "x/a.txt=a.txt"}, ""},
		{"file to existing directory", "a.txt", "/etc", []string{"etc/a.txt=a.txt"}, ""},
		{"file to dot", "a.txt", "/etc/.", []string{"etc/a.txt=a.txt"}, ""},
		{"file to root", "a.txt", "/", []string{"a.txt=a.txt"}, ""},
		{"file replaces file", "a.txt", "/file", []string{"file=a.txt"}, ""},
		{"file to file as directory", "a.txt", "/file/", nil, "non-directory"},
		{"file below a file", "a.txt", "/file/x", nil, "not a directory"},
		{"parents made", "a.txt", "/p/q/r", []string{"p/", "p/q/", "p/q/r=a.txt"}, ""},
		{"contents of directory", "other", "/x", []string{"x/", "x/five.go=other/five.go", "x/four.txt=other/four.txt"}, ""},
		{"contents into existing", "other/", "/etc", []string{"etc/five.go=other/five.go", "etc/four.txt=other/four.txt"}, ""},
		{"directory onto file", "other", "/file", nil, "non-directory"},
		{"wildcard", "?.txt", "/x/", []string{"x/", "x/a.txt=a.txt", "x/b.txt=b.txt"}, ""},
		{"wildcard of directories", "ot*", "/x/", []string{"x/", "x/five.go=other/five.go", "x/four.txt=other/four.txt"}, ""},
		{"wildcard in the middle", "*/*.go", "/x/", []string{"x/", "x/five.go=other/five.go"}, ""},
		{"class escapes a wildcard", "[[]x].txt", "/x/", []string{"x/", "x/[x].txt=[x].txt"}, ""},
		{"wildcard below link", "absolute/t*.txt", "/x/", []string{"x/", "x/two.txt=dir/sub/two.txt"}, ""},
		{"wildcard doesn't cross links", "abs*/two.txt", "/x/", nil, ""},
		{"empty wildcard", "*.none", "/x/", nil, ""},
		{"wildcard in missing directory", "none/*.txt", "/x/", nil, `"none/*.txt": not found`},
		{"bad wildcard", "[a", "/x/", nil, "syntax error in pattern"},
		{"link is followed", "link.txt", "/x/", []string{"x/", "x/link.txt=dir/one.txt"}, ""},
		{"link to directory", "absolute", "/x/", []string{"x/", "x/deep/", "x/deep/three.go=dir/sub/deep/three.go", "x/two.txt=dir/sub/two.txt"}, ""},
		{"path through links", "chain/two.txt", "/x", []string{"x=dir/sub/two.txt"}, ""},
		{"links in a directory are kept", "tree", "/x", []string{"x/", "x/inside -> ../a.txt", "x/out -> /etc/passwd"}, ""},
		{"dots are confined", "../../a.txt", "/x", []string{"x=a.txt"}, ""},
		{"link out of the tree", "escape/passwd", "/x", nil, `"escape/passwd": not found`},
		{"link out of the tree itself", "escape", "/x", nil, `it is a symbolic link to "/etc"`},
		{"dangling link", "dangling", "/x", nil, `it is a symbolic link to "/nowhere"`},
		{"link loop", "loop", "/x", nil, "too many levels"},
		{"missing", "dir/oen.txt", "/x", nil, `"dir/oen.txt": not found (did you mean "dir/one.txt"?)`},
		{"other case", "DIR/one.txt", "/x", nil, `(did you mean "dir/one.txt"?)`},
		{"below a file", "a.txt/b", "/x", nil, `"a.txt/b": not found`},
		{"fifo", "fifo", "/x/", []string{"x/", "x/fifo |"}, ""},
		{"empty directory", "empty", "/x", []string{"x/"}, ""},
		{"destination through link", "a.txt", "/etclink/", []string{"etc/a.txt=a.txt"}, ""},
		{"destination through absolute link", "a.txt", "/abslink/n/", []string{"etc/n/", "etc/n/a.txt=a.txt"}, ""},
		{"destination through relative link", "a.txt", "/var/l/y", []string{"var/nested/y=a.txt"}, ""},
		{"destination link out of root", "a.txt", "/outlink/e/", []string{"tmp/", "tmp/e/", "tmp/e/a.txt=a.txt"}, ""},
		{"destination link to nothing", "a.txt", "/newlink", []string{"made/", "made/later=a.txt"}, ""},
		{"destination link to no directory", "a.txt", "/newlink/", []string{"made/", "made/later/", "made/later/a.txt=a.txt"}, ""},
		{"destination link by way of nothing", "a.txt", "/back/", []string{"kept/", "kept/a.txt=a.txt"}, ""},
		{"destination link to file", "a.txt", "/filelink", []string{"file=a.txt"}, ""},
		{"destination dots", "a.txt", "/../../x", []string{"x=a.txt"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			src, root := build(t, context...), build(t, image...)
			before := list(t, root)
			s, err := open(t, src).Select(t.Context(), filecopy.Source{Path: tt.source})
			if err == nil {
				err = s.CopyTo(t.Context(), root, tt.dest, filecopy.Options{Owner: self()})
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error is %v, want %q", err, tt.err)
				}
				return
			}
			must(t, err)
			got := slices.DeleteFunc(list(t, root), func(l string) bool { return slices.Contains(before, l) })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

func TestNotFoundError(t *testing.T) {
	t.Parallel()
	tree := open(t, build(t, "secret.key", "docs/a.md", "docs/keep/b.md", "to -> secret.key"), "*.key", "docs", "!docs/keep")
	for source, want := range map[string]string{
		"secret.key":  `"secret.key": not found: excluded by .dockerignore (pattern "*.key")`,
		"/docs/a.md":  `"/docs/a.md": not found: excluded by .dockerignore (pattern "docs")`,
		"to":          `"to": not found: it is a symbolic link to "/secret.key": excluded by .dockerignore (pattern "*.key")`,
		"secret.kez":  `"secret.kez": not found`,
		"docs/kep/b":  `"docs/kep/b": not found`,
		"docs/keep/c": `"docs/keep/c": not found`,
	} {
		_, err := tree.Select(t.Context(), filecopy.Source{Path: source})
		var missing *filecopy.NotFoundError
		if !errors.As(err, &missing) || !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Errorf("Select(%q): %v, want %s", source, err, want)
		}
	}
	for source, want := range map[string]int{"*.key": 0, "docs/keep/*": 1} {
		if got := pick(t, tree, source).Sources(); got != want {
			t.Errorf("%q stands for %d sources, want %d", source, got, want)
		}
	}
}

func TestSockets(t *testing.T) {
	t.Parallel()
	src, root := build(t, "d/f"), t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	// A socket's path is limited to 108 bytes: bind relative to the directory.
	at, err := unix.Open(filepath.Join(src, "d"), unix.O_PATH, 0)
	must(t, err)
	defer unix.Close(at)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path.Join("/proc/self/fd", itoa(at), "sock")}))
	tree := open(t, src)
	if _, err := tree.Select(t.Context(), filecopy.Source{Path: "d/sock"}); err == nil || !strings.Contains(err.Error(), "a socket can't be copied") {
		t.Errorf("selecting a socket: %v", err)
	}
	if got := pick(t, tree, "d/s*").Sources(); got != 0 {
		t.Errorf("a wildcard found %d sockets", got)
	}
	s := pick(t, tree, "d")
	if got := s.Sockets(); !slices.Equal(got, []string{"d/sock"}) {
		t.Errorf("left out %q", got)
	}
	must(t, s.CopyTo(t.Context(), root, "/", filecopy.Options{Owner: self()}))
	if got := list(t, root); !slices.Equal(got, []string{"f=d/f"}) {
		t.Errorf("copied %q", got)
	}
}
