package integration_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestBombs: what is small and unpacks to much is refused by its name before it has
// filled anything, by every way into a build.
func TestBombs(t *testing.T) {
	t.Parallel()
	const much = 32 << 20
	filled := bomb(t, func(w *tar.Writer) error { return writeZeros(w, much) }, 0)
	behind := bomb(t, func(*tar.Writer) error { return nil }, much)
	holes := sparseArchive(t)
	for name, tt := range map[string]struct {
		archive []byte
		limit   string // of the flag, "" for its default
	}{"content": {filled, "16m"}, "behind its end": {behind, "16m"}, "holes": {holes, ""}} {
		for way, arrange := range bombWays {
			if name == "behind its end" && (way == "standard input" || way == "URL") {
				continue // nobody reads it there
			}
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				b := newWorkbench(t)
				i, named := arrange(b, tt.archive)
				i.Args = append([]string{"build", "--progress=plain"}, i.Args...)
				if tt.limit != "" {
					i.Args = append(i.Args, "--max-unpacked-size="+tt.limit)
				}
				result := b.run(i)
				const want = " that --max-unpacked-size allows"
				if result.Code != 1 || !strings.Contains(result.Stderr, want) || !strings.Contains(result.Stderr, named) {
					t.Errorf("exit code %d, want 1 with %q and %q\n%s", result.Code, want, named, result.Stderr)
				}
			})
		}
	}
	t.Run("allowed", func(t *testing.T) {
		t.Parallel()
		b := newWorkbench(t)
		bombWays["ADD"](b, filled)
		b.build("--max-unpacked-size=0")
	})
}

// bombWays are how an archive gets into a build. Each returns what the error names.
var bombWays = map[string]func(b *workbench, archive []byte) (harness.Invocation, string){
	"ADD": func(b *workbench, archive []byte) (harness.Invocation, string) {
		b.write(map[string]string{"context/Dockerfile": "FROM scratch\nADD bomb.tgz /\n", "context/bomb.tgz": string(archive)})
		return harness.Invocation{Args: []string{"context"}}, "bomb.tgz"
	},
	"standard input": func(_ *workbench, archive []byte) (harness.Invocation, string) {
		return harness.Invocation{Args: []string{"-"}, Stdin: bytes.NewReader(archive)}, "context from standard input"
	},
	"URL": func(b *workbench, archive []byte) (harness.Invocation, string) {
		b.write(map[string]string{"www/bomb.tgz": string(archive)})
		site := harness.Serve(b.dir + "/www")
		b.t.Cleanup(site.Close)
		return harness.Invocation{Args: []string{site.URL + "/bomb.tgz"}}, "context " + site.URL + "/bomb.tgz"
	},
	"base of RUN": func(b *workbench, archive []byte) (harness.Invocation, string) { return bombBase(b, archive) },
	"base of no RUN": func(b *workbench, archive []byte) (harness.Invocation, string) {
		return bombBase(b, archive, "--isolation=none")
	},
}

// bombBase builds on an image of the archive.
func bombBase(b *workbench, archive []byte, flags ...string) (harness.Invocation, string) {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	check(b.t, err)
	content, err := io.ReadAll(z)
	check(b.t, err)
	layer, err := harness.LayerOf(content)
	check(b.t, err)
	b.pushBase("bomb", layer)
	digest, err := layer.Digest()
	check(b.t, err)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/bomb-" + repositoryName(b.t) + "\nCOPY Dockerfile /\n"})
	return harness.Invocation{Args: append([]string{"-o", "type=local,dest=out", "context"}, flags...)}, digest.String()
}

// bomb returns a tar of what write writes, with some zeros behind its end, packed.
func bomb(t *testing.T, write func(*tar.Writer) error, behind int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	tw := tar.NewWriter(z)
	check(t, tw.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: 13}))
	_, err := io.WriteString(tw, "FROM scratch\n")
	check(t, err)
	check(t, write(tw))
	check(t, tw.Close())
	_, err = io.CopyN(z, zeros{}, behind)
	check(t, err)
	check(t, z.Close())
	return b.Bytes()
}

func writeZeros(w *tar.Writer, n int64) error {
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: n}); err != nil {
		return err
	}
	_, err := io.CopyN(w, zeros{}, n)
	return err
}

// sparseArchive returns a tar with a file of 8 TiB, which GNU tar stores as a hole.
func sparseArchive(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\n"), 0o644))
	check(t, os.WriteFile(filepath.Join(dir, "hole"), nil, 0o644))
	check(t, os.Truncate(filepath.Join(dir, "hole"), 8<<40))
	archive, err := exec.CommandContext(context.WithoutCancel(t.Context()), "tar", "-C", dir, "-czSf", "-", "Dockerfile", "hole").Output()
	check(t, err)
	return archive
}
