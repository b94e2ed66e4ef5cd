package account_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/bobbuild/bob/executor/account"
	"github.com/bobbuild/bob/executor/filecopy"
	"golang.org/x/sys/unix"
)

// accountRoot is an image's root with account files.
func accountRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	writeTree(t, root, map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:1001:\nwheel:x:10:app\nusers:x:100:\n",
	})
	return root
}

func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	tree := make(fstest.MapFS)
	for name, content := range files {
		tree[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	if err := os.CopyFS(root, tree); err != nil {
		t.Fatal(err)
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	root := accountRoot(t)
	for _, tt := range []struct {
		spec     string
		uid, gid uint32
		groups   []uint32
		home     string
		fails    bool
	}{
		{spec: "", groups: []uint32{0}, home: "/root"},
		{spec: "root", groups: []uint32{0}, home: "/root"},
		{spec: "app", uid: 1000, gid: 1001, groups: []uint32{1001, 10}, home: "/home/app"},
		{spec: "1000", uid: 1000, gid: 1001, groups: []uint32{1001, 10}, home: "/home/app"},
		{spec: "app:users", uid: 1000, gid: 100, groups: []uint32{100}, home: "/home/app"},
		{spec: "app:7", uid: 1000, gid: 7, groups: []uint32{7}, home: "/home/app"},
		{spec: "4242", uid: 4242, groups: []uint32{0}, home: "/"},
		{spec: "4242:4243", uid: 4242, gid: 4243, groups: []uint32{4243}, home: "/"},
		{spec: "nobody-here", fails: true},
		{spec: "app:nogroup-here", fails: true},
	} {
		t.Run(tt.spec, func(t *testing.T) {
			t.Parallel()
			got, err := account.User(root, tt.spec)
			if tt.fails {
				if err == nil {
					t.Fatalf("found %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.UID != tt.uid || got.GID != tt.gid || got.Home != tt.home || !slices.Equal(got.Groups, tt.groups) {
				t.Errorf("got %+v, want %+v", got, tt)
			}
		})
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	root := accountRoot(t)
	for _, tt := range []struct {
		spec    string
		want    filecopy.Owner
		unknown []string
	}{
		{spec: "", want: filecopy.Owner{}},
		{spec: "app", want: filecopy.Owner{UID: 1000, GID: 1001}},
		{spec: "app:", want: filecopy.Owner{UID: 1000, GID: 1001}},
		{spec: "app:wheel", want: filecopy.Owner{UID: 1000, GID: 10}},
		{spec: "5", want: filecopy.Owner{UID: 5, GID: 5}},
		{spec: "5:7", want: filecopy.Owner{UID: 5, GID: 7}},
		{spec: "5:wheel", want: filecopy.Owner{UID: 5, GID: 10}},
		{spec: "ghost", unknown: []string{"user ghost"}},
		{spec: "app:ghosts", want: filecopy.Owner{UID: 1000, GID: 1001}, unknown: []string{"group ghosts"}},
	} {
		t.Run(tt.spec, func(t *testing.T) {
			t.Parallel()
			got, unknown, err := account.Owner(root, tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			if *got != tt.want || !slices.Equal(unknown, tt.unknown) {
				t.Errorf("got %+v, unknown %q; want %+v, %q", *got, unknown, tt.want, tt.unknown)
			}
		})
	}
}

// TestRootIsZero checks that root is not looked up, as in BuildKit.
func TestRootIsZero(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writeTree(t, root, map[string]string{
		"etc/passwd": "root:x:3:9:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n", "etc/group": "root:x:5:\n",
	})
	for spec, want := range map[string]filecopy.Owner{
		"root": {}, "root:root": {}, "app:root": {UID: 1000}, "root:7": {GID: 7}, "app": {UID: 1000, GID: 1001},
	} {
		got, unknown, err := account.Owner(root, spec)
		if err != nil || *got != want || len(unknown) > 0 {
			t.Errorf("%s is %+v, unknown %q, error %v; want %+v", spec, got, unknown, err, want)
		}
	}
}

// An image's account files may be links; they lead inside the image only.
func TestAccountsStayInsideTheImage(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	writeTree(t, outside, map[string]string{"passwd": "spy:x:666:666::/:/bin/sh\n"})
	root := t.TempDir()
	writeTree(t, root, map[string]string{"real/passwd": "app:x:1000:1000::/:/bin/sh\n"})
	if err := os.Symlink("/real", filepath.Join(root, "etc")); err != nil {
		t.Fatal(err)
	}
	if id, err := account.User(root, "app"); err != nil || id.UID != 1000 {
		t.Errorf("through a link inside: %+v, %v", id, err)
	}
	hostile := t.TempDir()
	writeTree(t, hostile, map[string]string{"etc/group": ""})
	if err := os.Symlink(filepath.Join(outside, "passwd"), filepath.Join(hostile, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	if id, err := account.User(hostile, "spy"); err == nil {
		t.Errorf("read a file outside the image: %+v", id)
	}
	fifo := t.TempDir()
	writeTree(t, fifo, map[string]string{"etc/group": ""})
	if err := unix.Mkfifo(filepath.Join(fifo, "etc/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := account.User(fifo, "app"); err == nil {
		t.Error("a fifo was taken for /etc/passwd")
	}
}
