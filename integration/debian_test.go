package integration_test

import (
	"os"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestApt installs packages for real: maintainer scripts, users, chown,
// setgid programs, statoverrides, triggers, and what starts no service.
func TestApt(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "debian")
	check(t, err)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/debian\n" +
		"RUN apt-get update && apt-get install -y --no-install-recommends openssh-client nginx-light man-db && rm -rf /var/lib/apt/lists/*\n" +
		"RUN nginx -V && ssh -V && getent group _ssh && id www-data && dpkg --audit\n" +
		"RUN apt-get purge -y nginx-light && dpkg --verify openssh-client\n"})
	args := []string{"build", "--progress=plain", "-t", b.ref}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			args = append(args, "--build-arg", name+"="+value)
		}
	}
	result := b.bob(append(args, "context")...)
	if result.Code != 0 {
		if matches("temporary failure resolving|could not connect|failed to fetch", result.Stderr) {
			t.Skip("the Debian archive can't be reached from a build")
		}
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	image, err := lab.Pull(t.Context(), b.ref)
	check(t, err)
	for _, p := range imageProblems(image) {
		t.Error(p)
	}
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	for path, want := range map[string]string{
		"usr/bin/ssh-agent":    "-2755 0:",    // setgid, of a group made by the package
		"var/cache/man":        "d0755 6:12 ", // owned by the user man
		"usr/bin/passwd":       "-4755 0:0 ",  // from the base
		"var/log/apt":          "d0755 0:0 ",  //
		"tmp":                  "d1777 0:0 ",  //
		"var/log/apt/term.log": "-0640 0:4 ",  // group adm
	} {
		line := tree.Lines()[path]
		if !strings.HasPrefix(line, want) {
			t.Errorf("%s is %q, want %q…", path, line, want)
		}
	}
	for path := range tree {
		if path == "etc/nginx/nginx.conf" || strings.HasPrefix(path, "usr/sbin/nginx") {
			continue // conffiles stay after a purge of another package
		}
		if strings.HasPrefix(path, "var/lib/dpkg/info/nginx-light.") {
			t.Errorf("%s came back", path)
		}
	}
	sshAgent(t, b)
}
