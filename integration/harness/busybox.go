package harness

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Busybox returns the base image busybox, for others to be made of it.
func Busybox(ctx context.Context) (*BaseImage, error) { return busybox(ctx, true) }

func busybox(ctx context.Context, full bool) (*BaseImage, error) {
	if err := Need("busybox"); err != nil {
		return nil, err
	}
	binary, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	return busyboxOf(ctx, binary, full)
}

// busyboxOf makes an image of the program, with the names that this machine's has.
func busyboxOf(ctx context.Context, binary string, full bool) (*BaseImage, error) {
	if err := Need("busybox"); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, "busybox", "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of busybox: %w", err)
	}
	files := []File{dir("bin", 0o755), dir("sbin", 0o755), dir("usr", 0o755), dir("usr/bin", 0o755), dir("usr/sbin", 0o755)}
	files = append(files, file("bin/busybox", 0o755, string(body)))
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "bin/busybox" {
			files = append(files, File{Header: tar.Header{Typeflag: tar.TypeLink, Name: applet, Linkname: "bin/busybox", Mode: 0o755}})
		}
	}
	if full {
		files = append(files, accounts()...)
	}
	layer, err := TarLayer(files)
	if err != nil {
		return nil, err
	}
	return &BaseImage{Layers: []v1.Layer{layer}, Config: v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"sh"},
	}}, nil
}

func accounts() []File {
	return []File{
		dir("etc", 0o755), dir("dev", 0o755), dir("proc", 0o755), dir("sys", 0o755), dir("root", 0o700),
		dir("tmp", 0o1777), dir("var", 0o755), dir("home", 0o755),
		{Header: tar.Header{Typeflag: tar.TypeDir, Name: "home/alice/", Mode: 0o750, Uid: 1000, Gid: 1000}},
		file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/false\n"+
			"alice:x:1000:1000::/home/alice:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
		file("etc/group", 0o644, "root:x:0:\ndaemon:x:1:\nstaff:x:50:alice\nalice:x:1000:\nwheel:x:10:root,alice\nnogroup:x:65534:\n"),
		file("etc/shadow", 0o600, "root:*:::::::\n"),
	}
}

func linked(ctx context.Context) (*BaseImage, error) {
	base, err := busybox(ctx, true)
	if err != nil {
		return nil, err
	}
	layer, err := TarLayer([]File{
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/resolv.conf", Linkname: "../run/systemd/resolve/stub-resolv.conf"}},
		file("etc/hosts", 0o600, "10.0.0.1 of-the-image\n"), file("etc/hostname", 0o644, "of-the-image\n"),
	})
	base.Layers = append(base.Layers, layer)
	return base, err
}

// Layers returns the base image layers, for others to be made of it: busybox
// with two layers more, each a trap for unpackers.
func Layers(ctx context.Context) (*BaseImage, error) {
	base, err := busybox(ctx, true)
	if err != nil {
		return nil, err
	}
	fine := time.Unix(1600000000, 123456789)
	second, err := TarLayer([]File{
		dir("data", 0o755), dir("data/old", 0o755), file("data/old/a", 0o644, "a"), file("data/old/b", 0o644, "b"),
		dir("data/gone", 0o755), file("data/gone/x", 0o644, "x"), file("data/keep", 0o640, "keep"),
		{Header: tar.Header{Name: "data/fine", Mode: 0o644, ModTime: fine, Format: tar.FormatPAX}, Body: "fine"},
		{Header: tar.Header{Name: "data/suid", Mode: 0o4755, Uid: 0, Gid: 50}, Body: "suid"},
		{Header: tar.Header{Typeflag: tar.TypeLink, Name: "data/suid2", Linkname: "data/suid", Mode: 0o4755, Gid: 50}},
		{Header: tar.Header{Name: "data/high", Mode: 0o600, Uid: 65534, Gid: 65534}, Body: "high"},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "data/link", Linkname: "keep"}},
		{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "data/dirlink", Linkname: "old"}},
		{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "data/fifo", Mode: 0o644}},
		file("data/swap", 0o644, "a file that becomes a directory"),
	})
	if err != nil {
		return nil, err
	}
	third, err := TarLayer([]File{
		dir("data", 0o755), dir("data/old", 0o750), file("data/old/.wh..wh..opq", 0o644, ""), file("data/old/new", 0o644, "new"),
		file("data/.wh.gone", 0o644, ""), dir("data/swap", 0o700), file("data/swap/in", 0o644, "in"),
	})
	base.Layers = append(base.Layers, second, third)
	base.Config.Env = append(base.Config.Env, "FROM_BASE=yes")
	base.Config.Labels = map[string]string{"base": "layers"}
	return base, err
}

// PushWrongDiffID pushes busybox under ref with a config that names another
// diff ID than its layer has.
func (r *Registry) PushWrongDiffID(ctx context.Context, ref string) error {
	base, err := busybox(ctx, true)
	if err != nil {
		return err
	}
	base.Layers[0] = wrongDiffID{base.Layers[0]}
	return r.Push(ctx, ref, base)
}

type wrongDiffID struct{ v1.Layer }

func (wrongDiffID) DiffID() (v1.Hash, error) {
	return v1.NewHash("sha256:" + strings.Repeat("0", 64))
}
