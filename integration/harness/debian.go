package harness

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// debianAge is how long a Debian root file system is kept between runs.
const debianAge = 14 * 24 * time.Hour

// debian makes an image of the archive.
func debian(ctx context.Context) (*BaseImage, error) {
	archive, err := DebianArchive(ctx)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromFile(archive, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	return &BaseImage{Layers: []v1.Layer{layer}, Config: v1.Config{
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, Cmd: []string{"bash"},
	}}, nil
}

// DebianArchive returns the path of the tar of a small Debian root file system, which
// it makes by mmdebstrap if there is none of the last weeks: with this machine's own apt
// sources, keys and settings, so that apt-get works in a RUN. The error is a
// *MissingError where that can't be.
func DebianArchive(ctx context.Context) (string, error) {
	if err := Need("mmdebstrap"); err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	carried, key, err := aptFiles()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	archive := filepath.Join(cache, "debian-"+key+".tar")
	if info, err := os.Stat(archive); err != nil || time.Since(info.ModTime()) > debianAge {
		if err := bootstrap(ctx, archive, carried); err != nil {
			return "", err
		}
	}
	return archive, nil
}

// cacheDir makes the directory of what is kept between runs.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "bob-test")
	return cache, os.MkdirAll(cache, 0o755)
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
