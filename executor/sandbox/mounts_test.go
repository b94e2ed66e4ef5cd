package sandbox_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

func TestMountKinds(t *testing.T) {
	t.Parallel()
	host := t.TempDir()
	for name, content := range map[string]string{"f": "content\n", "sub/g": "deep\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(host, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	secret := func(target string, mode, id uint32) sandbox.Mount {
		return sandbox.Mount{Kind: sandbox.Memory, Target: target, File: sandbox.File{Content: []byte("s3cret\n"), Mode: mode, UID: id, GID: id}}
	}
	for _, test := range []struct {
		name    string
		entries [][2]string
		mounts  []sandbox.Mount
		uid     uint32
		script  string
		want    string
	}{
		{
			name:   "memory",
			mounts: []sandbox.Mount{secret("/run/secrets/a", 0o400, 0), secret("/root/.ssh/id", 0o640, 7)},
			script: "cat /run/secrets/a; ls -ln /run/secrets/a /root/.ssh/id | cut -c1-10; echo x > /run/secrets/a || echo refused",
			want:   "s3cret\n-rw-r-----\n-r--------\nrefused\n",
		},
		{
			name:   "memory for another user",
			mounts: []sandbox.Mount{secret("/run/secrets/a", 0o400, 0), secret("/run/secrets/b", 0o400, 7)},
			uid:    7,
			script: "cat /run/secrets/a || echo no; cat /run/secrets/b",
			want:   "no\ns3cret\n",
		},
		{
			name:    "memory over a file of the image",
			entries: [][2]string{{"etc/key", "old\n"}},
			mounts:  []sandbox.Mount{secret("/etc/key", 0o400, 0)},
			script:  "cat /etc/key",
			want:    "s3cret\n",
		},
		{
			name:   "executable memory",
			mounts: []sandbox.Mount{{Kind: sandbox.Memory, Target: "/x", File: sandbox.File{Content: []byte("#!/bin/sh\necho ran\n"), Mode: 0o500}}},
			script: "/x",
			want:   "ran\n",
		},
		{
			name:   "tmpfs",
			mounts: []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/scratch", Size: 64 << 10}},
			script: "stat -c %a /scratch; echo a > /scratch/a; cat /scratch/a; head -c 1m /dev/zero > /scratch/b 2>/dev/null || echo full",
			want:   "1777\na\nfull\n",
		},
		{
			name:    "tmpfs over a directory of the image",
			entries: [][2]string{{"data/old", "x"}},
			mounts:  []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/data"}},
			script:  "stat -c %a /data; ls -A /data",
			want:    "755\n",
		},
		{
			name:   "read-only tmpfs",
			mounts: []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/data", ReadOnly: true}},
			script: "touch /data/x || echo refused",
			want:   "refused\n",
		},
		{
			name: "mounts below mounts",
			mounts: []sandbox.Mount{
				{Kind: sandbox.Tmpfs, Target: "/a"},
				{Source: host, Target: "/a/b/c", ReadOnly: true},
				secret("/a/b/c/f", 0o400, 0),
				secret("/a/x/y", 0o400, 0),
			},
			script: "cat /a/b/c/f /a/b/c/sub/g /a/x/y",
			want:   "s3cret\ndeep\ns3cret\n",
		},
		{
			name:    "through links",
			entries: [][2]string{{"var/run", "->/run"}, {"run/", ""}, {"srv", "->opt/../data"}},
			mounts: []sandbox.Mount{
				secret("/var/run/secrets/a", 0o400, 0),
				{Source: filepath.Join(host, "f"), Target: "/srv/f", ReadOnly: true},
			},
			script: "cat /run/secrets/a /data/f",
			want:   "s3cret\ncontent\n",
		},
		{
			name:   "the later of two",
			mounts: []sandbox.Mount{{Source: host, Target: "/a"}, {Kind: sandbox.Tmpfs, Target: "/a"}},
			script: "ls -A /a; echo none",
			want:   "none\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if oneID() && test.uid != 0 {
				t.Skip("with one ID every user may read what root may")
			}
			root := newRoot(t, test.entries...)
			before, beforeHost := tree(t, root), tree(t, host)
			var out bytes.Buffer
			p := shell(root, withApplets(test.script))
			p.UID, p.GID, p.Mounts, p.Stdout = test.uid, test.uid, test.mounts, &out
			if err := newRunner(t).Run(t.Context(), p); err != nil {
				t.Error(err)
			}
			if out.String() != test.want {
				t.Errorf("output is %q, want %q", &out, test.want)
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
			if after := tree(t, host); after != beforeHost {
				t.Errorf("source before:\n%safter:\n%s", beforeHost, after)
			}
			if left := mountsBelow(t, root); len(left) > 0 {
				t.Errorf("left mounted: %q", left)
			}
		})
	}
}

// withApplets has a script call busybox's own commands.
func withApplets(script string) string {
	functions := ""
	for _, name := range []string{"cat", "ls", "cut", "stat", "head", "touch"} {
		functions += name + "() { /bin/busybox " + name + ` "$@"; }; `
	}
	return functions + script
}

// TestSecretIsNowhereOnDisk looks for the bytes of a file in memory in every
// file that the runner makes while the command runs, and finds them only where
// a tmpfs is mounted.
func TestSecretIsNowhereOnDisk(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	secret := "the secret " + unique()
	root := newRoot(t)
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	p := shell(root, "/bin/busybox cat /key; /bin/busybox sleep 600")
	p.Mounts = []sandbox.Mount{{Kind: sandbox.Memory, Target: "/key", File: sandbox.File{Content: []byte(secret), Mode: 0o400}}}
	p.Stdout = writer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		ended <- r.Run(ctx, p)
		_ = writer.Close()
	}()
	shown := make([]byte, len(secret))
	if _, err := io.ReadFull(reader, shown); err != nil || string(shown) != secret {
		t.Fatalf("the command shows %q, %v", shown, err)
	}
	mounts := mountsBelow(t, r.Dir)
	err := filepath.Walk(filepath.Dir(r.Dir), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.IsDir() && info.Name() == "sys" {
			return filepath.SkipDir // a sysfs
		}
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inMemory := false
		for _, m := range mounts {
			inMemory = inMemory || strings.HasPrefix(path, m+"/")
		}
		if bytes.Contains(content, []byte(secret)) && !inMemory {
			t.Errorf("the secret is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a cancelled run succeeded")
	}
	if left := mountsBelow(t, r.Dir); len(left) > 0 {
		t.Errorf("left mounted: %q", left)
	}
}

func TestInsecure(t *testing.T) {
	t.Parallel()
	for _, uid := range []uint32{0, 1000} {
		root := newRoot(t, [2]string{"mnt/", ""})
		var out bytes.Buffer
		script := "/bin/busybox grep -E 'CapEff|CapAmb|Seccomp:' /proc/self/status; /bin/busybox mount -t tmpfs x /mnt && echo mounted"
		p := shell(root, script)
		p.UID, p.GID, p.Insecure, p.Stdout, p.Stderr = uid, uid, true, &out, &out
		if err := newRunner(t).Run(t.Context(), p); err != nil {
			t.Errorf("%v\n%s", err, &out)
		}
		own, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		var capabilities string
		for line := range strings.Lines(string(own)) {
			if value, ok := strings.CutPrefix(line, "CapBnd:\t"); ok {
				capabilities = value
			}
		}
		for _, want := range []string{"CapEff:\t" + capabilities, "CapAmb:\t" + capabilities, "mounted\n"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("uid %d: output is %q, want %q in it", uid, &out, want)
			}
		}
		out.Reset()
		p.Insecure = false
		if err := newRunner(t).Run(t.Context(), p); err == nil || strings.Contains(out.String(), "mounted") {
			t.Errorf("a confined command may mount: %v, %q", err, &out)
		}
	}
}
