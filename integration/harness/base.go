package harness

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BaseMark ends the created_by of each layer of a base image, so that what a
// build put on top can be told from it.
const BaseMark = "of a test base"

// debianAge is how long a Debian root file system is kept between runs.
const debianAge = 14 * 24 * time.Hour

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
// it has an /etc/hosts) and debian.
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
		return layers(ctx)
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
	return nil, errors.New("no such base image")
}

// Push makes an image of base and pushes it to ref.
func (r *Registry) Push(ctx context.Context, ref string, base *BaseImage) error {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, base.Config
	file.Created = v1.Time{Time: time.Unix(1700000000, 0).UTC()}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return err
	}
	for i, layer := range base.Layers {
		if image, err = mutate.Append(image, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{CreatedBy: fmt.Sprintf("layer %d %s", i, BaseMark), Created: file.Created},
		}); err != nil {
			return err
		}
	}
	tag, err := name.NewTag(ref, name.Insecure)
	if err != nil {
		return err
	}
	options := []remote.Option{remote.WithContext(ctx)}
	if r.guard {
		options = append(options, remote.WithAuth(&authn.Basic{Username: GuardedUser, Password: GuardedPassword}))
	}
	if err := remote.Write(tag, image, options...); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// A File is one entry of a layer made by hand; Body is for regular files.
type File struct {
	tar.Header
	Body string
}

// TarLayer makes a gzip layer of files as they stand: it checks nothing, so
// that hostile layers can be made too.
func TarLayer(files []File) (v1.Layer, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, f := range files {
		h := f.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(f.Body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1600000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("write %s: %w", h.Name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, f.Body); err != nil {
				return nil, fmt.Errorf("write %s: %w", h.Name, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return LayerOf(buffer.Bytes())
}

// LayerOf makes a gzip layer of an uncompressed tar.
func LayerOf(uncompressed []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(uncompressed)), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
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
	body, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, binary, "--list-full").Output()
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

// layers is busybox with two layers more, each a trap for unpackers.
func layers(ctx context.Context) (*BaseImage, error) {
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

// debian makes a small Debian root file system by mmdebstrap with this
// machine's own apt sources, keys and settings, so that apt-get works in a RUN.
func (l *Lab) debian(ctx context.Context) (*BaseImage, error) {
	if err := Need("mmdebstrap"); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "bob-test")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	carried, key, err := aptFiles()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	archive := filepath.Join(cache, "debian-"+key+".tar")
	if info, err := os.Stat(archive); err != nil || time.Since(info.ModTime()) > debianAge {
		if err := bootstrap(ctx, archive, carried); err != nil {
			return nil, err
		}
	}
	layer, err := tarball.LayerFromFile(archive, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	return &BaseImage{Layers: []v1.Layer{layer}, Config: v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"bash"},
	}}, nil
}

// aptFiles lists the files of /etc/apt and its keyrings that a build needs to
// reach the same archive as this machine, and a key that changes with them.
func aptFiles() (files []string, key string, err error) {
	hash := sha256.New()
	for _, root := range []string{
		"/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d",
		"/etc/apt/keyrings", "/etc/apt/auth.conf.d", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d", "/usr/share/keyrings",
	} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() || !carry(path) {
				return err
			}
			body, err := os.ReadFile(path)
			fmt.Fprintf(hash, "%s %d %s\n", path, len(body), body)
			files = append(files, path)
			return err
		})
		if err != nil {
			return nil, "", fmt.Errorf("read the machine's apt configuration: %w", err)
		}
	}
	return files, fmt.Sprintf("%x", hash.Sum(nil))[:16], nil
}

// carry leaves out hooks that run programs which a small system doesn't have.
func carry(path string) bool {
	if filepath.Dir(path) != "/etc/apt/apt.conf.d" {
		return true
	}
	body, err := os.ReadFile(path)
	return err == nil && !bytes.Contains(body, []byte("Invoke")) && !bytes.Contains(body, []byte("Pre-Install-Pkgs")) &&
		!bytes.Contains(body, []byte("IndexTargets"))
}

func bootstrap(ctx context.Context, archive string, carried []string) error {
	suite, err := exec.CommandContext(ctx, "sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").Output()
	if err != nil {
		return fmt.Errorf("read /etc/os-release: %w", err)
	}
	sources, err := aptSources()
	if err != nil {
		return err
	}
	temporary := archive + ".part.tar"
	args := []string{"--quiet", "--variant=apt", "--include=libcap2-bin", "--format=tar"}
	for _, f := range carried {
		if strings.HasPrefix(f, "/etc/apt/sources.list") {
			continue // mmdebstrap writes what it is given
		}
		args = append(args, fmt.Sprintf("--customize-hook=mkdir -p \"$1%s\" && cp %q \"$1%s\"", filepath.Dir(f), f, f))
	}
	args = append(args, "--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/archives/*.deb",
		strings.TrimSpace(string(suite)), temporary)
	if err := sh(ctx, "mmdebstrap", append(args, sources...)...); err != nil {
		return &MissingError{What: "a Debian archive to bootstrap from: " + err.Error()}
	}
	return os.Rename(temporary, archive)
}

func aptSources() ([]string, error) {
	var found []string
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list", "/etc/apt/sources.list.d/*.sources"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			body, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			if bytes.Contains(body, []byte("debian")) || bytes.Contains(body, []byte("ubuntu")) {
				found = append(found, f)
			}
		}
	}
	if len(found) == 0 {
		return nil, &MissingError{What: "sources of Debian or Ubuntu in /etc/apt"}
	}
	return found, nil
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
