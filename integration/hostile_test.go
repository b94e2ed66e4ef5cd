package integration_test

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/bobbuild/bob/integration/harness"
)

// A hostileLayer is a layer on top of busybox that tries to reach the directory
// OUT, which the user who runs bob may write to. Whatever bob makes of it,
// nothing may change there.
type hostileLayer struct {
	files   []harness.File // OUT in names and targets is replaced
	refused bool           // there is no harmless reading: the build must fail
}

func entry(kind byte, name, link, body string) harness.File {
	return harness.File{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o755}, Body: body}
}

var up = strings.Repeat("../", 30)

var hostileLayers = map[string]hostileLayer{
	"dotdot":            {files: []harness.File{entry(tar.TypeReg, up+"OUT/new", "", "x")}},
	"dotdot inside":     {files: []harness.File{entry(tar.TypeReg, "etc/../"+up+"OUT/new", "", "x")}},
	"absolute":          {files: []harness.File{entry(tar.TypeReg, "/OUT/new", "", "x")}},
	"symlink then file": {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT", ""), entry(tar.TypeReg, "l/new", "", "x")}},
	"relative symlink then file": {files: []harness.File{
		entry(tar.TypeSymlink, "l", up+"OUT", ""), entry(tar.TypeReg, "l/new", "", "x"),
	}},
	"symlink then directory": {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT", ""), entry(tar.TypeDir, "l/new/", "", "")}},
	"symlink then its mode":  {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT/canary", ""), entry(tar.TypeReg, "l", "", "x")}},
	"symlinked parent's parent": {files: []harness.File{
		entry(tar.TypeSymlink, "a", "/OUT", ""), entry(tar.TypeSymlink, "b", "a", ""), entry(tar.TypeReg, "b/c/new", "", "x"),
	}},
	"hardlink out":             {files: []harness.File{entry(tar.TypeLink, "h", up+"OUT/canary", "")}, refused: true},
	"hardlink to absolute":     {files: []harness.File{entry(tar.TypeLink, "h", "/OUT/canary", "")}, refused: true},
	"hardlink through symlink": {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT", ""), entry(tar.TypeLink, "h", "l/canary", "")}, refused: true},
	"hardlink then write": {files: []harness.File{
		entry(tar.TypeSymlink, "l", "/OUT/canary", ""), entry(tar.TypeLink, "h", "l", ""), entry(tar.TypeReg, "h", "", "changed"),
	}},
	"whiteout of dotdot":       {files: []harness.File{entry(tar.TypeReg, "etc/.wh...", "", "")}, refused: true},
	"whiteout of dot":          {files: []harness.File{entry(tar.TypeReg, "etc/.wh..", "", "")}, refused: true},
	"whiteout of nothing":      {files: []harness.File{entry(tar.TypeReg, "etc/.wh.", "", "")}, refused: true},
	"whiteout through symlink": {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT", ""), entry(tar.TypeReg, "l/.wh.canary", "", "")}},
	"opaque through symlink":   {files: []harness.File{entry(tar.TypeSymlink, "l", "/OUT", ""), entry(tar.TypeReg, "l/.wh..wh..opq", "", "")}},
	"hardlink to itself":       {files: []harness.File{entry(tar.TypeLink, "h", "h", "")}, refused: true},
	"hardlink to nothing":      {files: []harness.File{entry(tar.TypeLink, "h", "not-there", "")}, refused: true},
	"root as a file":           {files: []harness.File{entry(tar.TypeReg, ".", "", "x")}, refused: true},
	"root as a symlink":        {files: []harness.File{entry(tar.TypeSymlink, "./", "/OUT", ""), entry(tar.TypeReg, "new", "", "x")}},
	"overlay's own attribute": {files: []harness.File{{Header: tar.Header{
		Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"SCHILY.xattr.user.overlay.redirect": "/OUT", "SCHILY.xattr.user.overlay.opaque": "y"},
	}}}},
	// Where bob mounts and writes for each RUN.
	"dev as a symlink":  {files: []harness.File{entry(tar.TypeSymlink, "dev", "/OUT", "")}},
	"proc as a symlink": {files: []harness.File{entry(tar.TypeSymlink, "proc", up+"OUT", "")}},
	"sys as a symlink":  {files: []harness.File{entry(tar.TypeSymlink, "sys", "/OUT", "")}},
	"etc as a symlink":  {files: []harness.File{entry(tar.TypeReg, ".wh.etc", "", ""), entry(tar.TypeSymlink, "etc", "/OUT", "")}},
	"run as a symlink":  {files: []harness.File{entry(tar.TypeSymlink, "run", "/OUT", "")}},
	"bin as a symlink": {files: []harness.File{
		entry(tar.TypeReg, ".wh.bin", "", ""), entry(tar.TypeSymlink, "bin", "/bin", ""),
	}},
	"device of the host": {files: []harness.File{{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Devmajor: 8, Mode: 0o666}}}},
	"owner beyond the map": {files: []harness.File{
		{Header: tar.Header{Name: "f", Uid: 1516583083, Gid: 20, Mode: 0o644, Format: tar.FormatPAX}, Body: "x"},
	}},
}

func TestHostileLayers(t *testing.T) {
	t.Parallel()
	for name, hostile := range hostileLayers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			out := b.canary()
			layer, err := harness.TarLayer(aim(hostile.files, out))
			check(t, err)
			b.pushBase("evil", layer)
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/evil-" + repositoryName(t) + "\nRUN [\"/bin/busybox\", \"true\"]\n"})
			result := b.bob("build", "--progress=plain", "-t", b.ref, "context")
			b.wantCanary(out)
			if result.Code != 0 && result.Code != 1 || strings.Contains(result.Stderr, "goroutine ") {
				t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
			}
			if hostile.refused && result.Code != 1 {
				t.Errorf("the layer was taken\n%s", result.Stderr)
			}
			if result.Code == 1 {
				b.wantAbsent()
				if !strings.Contains(result.Stderr, "Dockerfile:1") && !strings.Contains(result.Stderr, "Dockerfile:2") {
					t.Errorf("no line of the Dockerfile is named:\n%s", result.Stderr)
				}
			}
		})
	}
}

// aim replaces OUT by the path of the canary's directory.
func aim(files []harness.File, out string) []harness.File {
	aimed := make([]harness.File, 0, len(files))
	for _, f := range files {
		f.Name = strings.ReplaceAll(f.Name, "/OUT", out)
		f.Name = strings.ReplaceAll(f.Name, "OUT", strings.TrimPrefix(out, "/"))
		f.Linkname = strings.ReplaceAll(f.Linkname, "/OUT", out)
		f.Linkname = strings.ReplaceAll(f.Linkname, "OUT", strings.TrimPrefix(out, "/"))
		aimed = append(aimed, f)
	}
	return aimed
}

// canary makes a directory outside of everything that a build owns, which its
// user may write to.
func (b *workbench) canary() string {
	b.t.Helper()
	out := filepath.Join(b.dir, "out")
	check(b.t, os.MkdirAll(out, 0o755))
	check(b.t, os.WriteFile(filepath.Join(out, "canary"), []byte("alive\n"), 0o644))
	check(b.t, lab.User.Own(out))
	return out
}

func (b *workbench) wantCanary(out string) {
	b.t.Helper()
	entries, err := os.ReadDir(out)
	check(b.t, err)
	for _, e := range entries {
		if e.Name() != "canary" {
			b.t.Errorf("%s appeared on the host", filepath.Join(out, e.Name()))
		}
	}
	info, err := os.Lstat(filepath.Join(out, "canary"))
	check(b.t, err)
	body, err := os.ReadFile(filepath.Join(out, "canary"))
	check(b.t, err)
	if string(body) != "alive\n" || info.Mode() != 0o644 {
		b.t.Errorf("the host's file became %q with mode %v", body, info.Mode())
	}
	if _, err := os.Lstat("/OUT"); err == nil {
		b.t.Error("/OUT appeared on the host")
	}
}

// pushBase pushes layers on top of busybox below a name of the test's own.
func (b *workbench) pushBase(name string, layers ...v1.Layer) {
	b.t.Helper()
	base, err := harness.Busybox(b.t.Context())
	check(b.t, err)
	base.Layers = append(base.Layers, layers...)
	check(b.t, b.registry.Push(b.t.Context(), b.registry.Prefix+"/"+name+"-"+repositoryName(b.t)+":latest", base))
}

// repositoryName is the test's name as one component of a repository.
func repositoryName(t *testing.T) string {
	return strings.Trim(strings.ReplaceAll(strings.ToLower(strings.Map(repository, t.Name())), "/", "-"), "-")
}

// TestHostileRoot builds on an image whose own links lead out: each thing that
// bob itself does inside the image must stay there.
func TestHostileRoot(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	out := b.canary()
	check(t, os.WriteFile(filepath.Join(out, "canary"), []byte("alive\n"), 0o644))
	fake := filepath.Join(b.dir, "passwd")
	check(t, os.WriteFile(fake, []byte("evil:x:1234:1234::/:/bin/sh\n"), 0o644))
	layer, err := harness.TarLayer(aim([]harness.File{
		entry(tar.TypeSymlink, "link", "/OUT", ""), entry(tar.TypeSymlink, "rel", up+"OUT", ""),
		entry(tar.TypeSymlink, "etc/passwd", fake, ""), entry(tar.TypeSymlink, "etc/resolv.conf", "/OUT/canary", ""),
		entry(tar.TypeSymlink, "etc/hosts", "/OUT/canary", ""), entry(tar.TypeSymlink, "etc/group", fake, ""),
		entry(tar.TypeSymlink, "secret", fake, ""),
	}, out))
	check(t, err)
	b.pushBase("root", layer)
	check(t, os.MkdirAll(filepath.Join(b.dir, "context"), 0o755))
	base := "FROM $REGISTRY/root-" + repositoryName(t) + "\n"
	for name, test := range map[string]struct {
		steps string
		code  int
	}{
		"copy":          {"COPY f /link/new\nCOPY f /rel/new2\n", 0},
		"copy onto":     {"COPY f /link/canary\n", 0},
		"add":           {"ADD f /link/\n", 0},
		"heredoc":       {"COPY <<EOF /link/new\nx\nEOF\n", 0},
		"workdir":       {"WORKDIR /link/made\nWORKDIR /rel/made\n", 0},
		"run":           {"RUN mkdir -p " + out + " && echo x > /link/new\n", 0},
		"user":          {"USER evil\nRUN true\n", 1},
		"chown":         {"COPY --chown=evil f /f\nRUN test \"$(stat -c %u /f)\" = 0\n", 0},
		"copy from":     {"RUN true\nFROM scratch\nCOPY --from=0 /secret /secret\n", 1},
		"copy from dir": {"RUN true\nFROM scratch\nCOPY --from=0 /link/canary /canary\n", 1},
		"hosts":         {"RUN test -d / \nRUN echo changed > /etc/hosts || true\n", -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := &workbench{t: t, dir: b.dir, registry: b.registry, ref: b.registry.Prefix + "/hostile-" + strings.ReplaceAll(name, " ", "-") + ":1"}
			b.write(map[string]string{"context/Dockerfile": base + test.steps, "context/f": "x\n"})
			result := b.bob("build", "--progress=plain", "-t", b.ref, "context")
			if test.code >= 0 && result.Code != test.code || result.Code > 1 {
				t.Errorf("exit code %d, want %d\n%s", result.Code, test.code, result.Stderr)
			}
			b.wantCanary(out)
		})
	}
}
