package dockerfile_test

import (
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestWindows holds the paths of images for Windows against those of BuildKit v0.34.2,
// whose results these are, and those of others against Linux.
func TestWindows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		os, text, want string // of the last step
	}{
		{"windows", "WORKDIR C:\\\\app\\\\x", "workdir /app/x"},
		{"windows", "WORKDIR /app\nWORKDIR sub", "workdir /app/sub"},
		{"windows", "WORKDIR c:/app\nWORKDIR C:sub", "workdir /app/sub"},
		{"windows", "WORKDIR /a\nWORKDIR \\\\b", "workdir /b"},
		{"windows", "WORKDIR C:\\\\", ""},
		{"windows", "WORKDIR D:\\\\app", "not on the system drive"},
		{"windows", "WORKDIR C:", "No relative path"},
		{"windows", "WORKDIR \\\\\\\\host\\\\share", "UNC paths are not supported"},
		{"windows", "COPY f b\\\\c.exe", "copy f to /b/c.exe"},
		{"windows", "COPY f C:/Windows/d/", "copy f to /Windows/d/"},
		{"windows", "COPY f C:\\\\Windows\\\\d\\\\", "copy f to /Windows/d/"},
		{"windows", "WORKDIR /w\nCOPY f .", "copy f to /w/"},
		{"windows", "WORKDIR /w\nCOPY f .\\\\e\\\\", "copy f to /w/e"}, // sic
		{"windows", "WORKDIR /w\nCOPY d\\\\f g", "copy d/f to /w/g"},
		{"windows", "COPY f d:/x", "not on the system drive"},
		{"windows", "COPY d:/f /x", "not on the system drive"},
		{"windows", "COPY --parents a\\\\b /x/", "copy .|a/b to /x/"},
		{"darwin", "WORKDIR C:\\\\app", "workdir /C:\\app"},
		{"darwin", "COPY f b\\\\c", "copy f to /b\\c"},
		{"freebsd", "WORKDIR /w\nCOPY d:/f .", "copy d:/f to /w/"},
	} {
		p := ocispec.Platform{OS: tt.os, Architecture: "amd64"}
		got := ""
		plan, err := planText("FROM scratch\n"+tt.text+"\n", dockerfile.Options{TargetPlatform: p})
		if err == nil {
			var steps []dockerfile.Step
			if steps, _, err = plan.Target().Steps(dockerspec.DockerOCIImage{}); err == nil {
				switch op := steps[len(steps)-1].Op.(type) {
				case *dockerfile.Run:
					got = "run"
				case *dockerfile.Workdir:
					got = "workdir " + op.Path
				case *dockerfile.Copy:
					if src, ok := op.Sources[0].(*dockerfile.Path); ok {
						name := src.Name
						if src.Parents != "" {
							name += "|" + src.Parents
						}
						got = "copy " + name + " to " + op.Dest
					}
				}
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("%s: %q: got %q, want %q", tt.os, tt.text, got, tt.want)
		}
	}
}

// TestPlatformConfig holds configurations for other systems against those that
// BuildKit v0.34.2 makes.
func TestPlatformConfig(t *testing.T) {
	t.Parallel()
	const text = "FROM scratch\nARG TARGETPLATFORM TARGETOS TARGETOSVERSION TARGETARCH TARGETVARIANT\n" +
		"LABEL l=$TARGETPLATFORM|$TARGETOS|$TARGETOSVERSION|$TARGETARCH|$TARGETVARIANT\nWORKDIR /a\nWORKDIR b\nCMD echo\n"
	for name, tt := range map[string]struct {
		platform                ocispec.Platform
		label, dir, cmd, entire string
	}{
		"windows": {
			ocispec.Platform{OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"},
			"windows(10.0.17763.1)/amd64|windows|10.0.17763.1|amd64|", "\\a\\b", "cmd /S /C echo", "[]",
		},
		"darwin": {
			ocispec.Platform{OS: "darwin", Architecture: "arm64"},
			"darwin/arm64|darwin||arm64|", "/a/b", "/bin/sh -c echo", "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin]",
		},
		"wasi": {
			ocispec.Platform{OS: "wasip1", Architecture: "wasm"},
			"wasip1/wasm|wasip1||wasm|", "/a/b", "/bin/sh -c echo", "[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin]",
		},
	} {
		image := mustImage(t, text, dockerfile.Options{TargetPlatform: tt.platform, PlatformGiven: true}, dockerspec.DockerOCIImage{})
		c := image.Config
		if got := toJSON(image.Platform); got != toJSON(tt.platform) {
			t.Errorf("%s: the platform is %s", name, got)
		}
		if c.Labels["l"] != tt.label || c.WorkingDir != tt.dir || strings.Join(c.Cmd, " ") != tt.cmd || "["+strings.Join(c.Env, " ")+"]" != tt.entire {
			t.Errorf("%s: %+v", name, c)
		}
	}
	// The base of a Windows image has its directory with the drive.
	base := dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: ocispec.Platform{OS: "windows", Architecture: "amd64"}}}
	base.Config.WorkingDir = "C:\\app"
	image := mustImage(t, "FROM a\nWORKDIR b\n", dockerfile.Options{TargetPlatform: base.Platform}, base)
	if got := image.Config.WorkingDir; got != "\\app\\b" {
		t.Errorf("over C:\\app: %s", got)
	}
}
