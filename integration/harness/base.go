package harness

import (
	"archive/tar"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BaseMark ends the created_by of each layer of a base image, so that what a
// build put on top can be told from it.
const BaseMark = "of a test base"

// A BaseImage is made by the harness and pushed to the registries.
type BaseImage struct {
	Layers []v1.Layer
	Config v1.Config
}

// Image pushes the base image called name to Registry once and returns its
// reference below Prefix. Names: busybox (static, with accounts root, daemon,
// alice, nobody), bare (the same without /proc, /sys, /dev, /tmp and /etc),
// layers (busybox and two more layers, with a whiteout, hardlinks, a setuid
// file and sub-second times), onbuild (busybox with triggers), linked (its
// /etc/resolv.conf is a link to what isn't there, as with systemd-resolved, and
// it has an /etc/hosts), debian, and the ones that break unpackers and readers of
// configs: labelled (attributes that no unprivileged user may set), malformed
// (its config and its account files), hidden (whiteouts where nothing is left to
// hide), nodes (see [Nodes]) and outside (triggers that copy from beside the context).
func (l *Lab) Image(ctx context.Context, image string) (string, error) {
	l.mu.Lock()
	once, ok := l.images[image]
	if !ok {
		once = sync.OnceValues(func() (string, error) {
			r, err := l.Registry()
			if err != nil {
				return "", err
			}
			return l.push(ctx, r, image)
		})
		l.images[image] = once
	}
	l.mu.Unlock()
	return once()
}

func (l *Lab) push(ctx context.Context, r *Registry, image string) (string, error) {
	base, err := l.base(ctx, image)
	if err != nil {
		return "", fmt.Errorf("make base image %s: %w", image, err)
	}
	ref := r.Prefix + "/" + image + ":latest"
	return ref, r.Push(ctx, ref, base)
}

func (l *Lab) base(ctx context.Context, image string) (*BaseImage, error) {
	switch image {
	case "busybox":
		return busybox(ctx, true)
	case "bare":
		return busybox(ctx, false)
	case "layers":
		return Layers(ctx)
	case "linked":
		return linked(ctx)
	case "onbuild":
		base, err := busybox(ctx, true)
		if err == nil {
			base.Config.OnBuild = []string{"COPY . /src/", "RUN echo triggered > /triggered"}
		}
		return base, err
	case "debian":
		return l.debian(ctx)
	}
	return odd(ctx, image)
}

// Push makes an image of base, for this machine's architecture, and pushes it to ref.
func (r *Registry) Push(ctx context.Context, ref string, base *BaseImage) error {
	image, err := base.image(v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	if err != nil {
		return err
	}
	tag, options, err := r.destination(ctx, ref)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, image, options...); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// PushIndex pushes an index of base images by platform, as in linux/arm/v7, to
// ref. It returns the digests of the images by platform, and under "index" that
// of the index.
func (r *Registry) PushIndex(ctx context.Context, ref string, bases map[string]*BaseImage) (map[string]string, error) {
	digests := map[string]string{}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, name := range slices.Sorted(maps.Keys(bases)) {
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		image, err := bases[name].image(*platform)
		if err != nil {
			return nil, err
		}
		digest, err := image.Digest()
		if err != nil {
			return nil, err
		}
		digests[name] = digest.String()
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	digests["index"] = digest.String()
	tag, options, err := r.destination(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := remote.WriteIndex(tag, index, options...); err != nil {
		return nil, fmt.Errorf("push %s: %w", ref, err)
	}
	return digests, nil
}

func (r *Registry) destination(ctx context.Context, ref string) (name.Tag, []remote.Option, error) {
	options := []remote.Option{remote.WithContext(ctx)}
	if r.guard != nothing {
		options = append(options, remote.WithAuth(&authn.Basic{Username: GuardedUser, Password: GuardedPassword}))
	}
	tag, err := name.NewTag(ref, name.Insecure)
	return tag, options, err
}

func (b *BaseImage) image(platform v1.Platform) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant, file.Config = platform.OS, platform.Architecture, platform.Variant, b.Config
	file.Created = v1.Time{Time: time.Unix(1700000000, 0).UTC()}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return nil, err
	}
	for i, layer := range b.Layers {
		if image, err = mutate.Append(image, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{CreatedBy: fmt.Sprintf("layer %d %s", i, BaseMark), Created: file.Created},
		}); err != nil {
			return nil, err
		}
	}
	return image, nil
}

func dir(name string, mode int64) File {
	return File{Header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}}
}

func file(name string, mode int64, body string) File {
	return File{Header: tar.Header{Name: name, Mode: mode}, Body: body}
}

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
