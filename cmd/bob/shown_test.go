package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// commands for a terminal: set the clipboard, clear the screen, colours by a C1
// control, and what turns the rest of the line around.
const commandsForTerminal = "\x1b]52;c;ZXZpbA==\a\x1b[2J\u009b31m\u202e\u2066\x7f\b"

// TestNothingShownCommandsATerminal has every command print what somebody else may
// have written, as a result and as an error.
func TestNothingShownCommandsATerminal(t *testing.T) {
	t.Parallel()
	const evil = "evil" + commandsForTerminal + "text"
	host := hostileRegistry(t, evil)
	dir := func(files ...string) string {
		d := t.TempDir()
		for i := 0; i < len(files); i += 2 {
			if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	good := dir("Dockerfile", "FROM scratch\n")
	archive := filepath.Join(t.TempDir(), evil)
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Name: "../" + evil, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"unknown command":     {evil},
		"unknown flag":        {"build", "--" + evil, good},
		"flag's value":        {"build", "--label", "=" + evil, good},
		"flag of package ff":  {"build", "--jobs", evil, good},
		"progress":            {"build", "--progress", evil, good},
		"secret":              {"build", "--secret", "id=x,src=" + evil, good},
		"context":             {"build", evil},
		"named context":       {"build", "--build-context", "x=" + evil, good},
		"Dockerfile's name":   {"build", "--check", "-f", evil, good},
		"instruction":         {"build", "--check", dir("Dockerfile", "FROM scratch\n# "+evil+"\nEVIL"+evil+" x\n")},
		"excerpt around":      {"build", "--check", dir("Dockerfile", "# "+evil+"\nFROM scratch\nWHAT\n# "+evil)},
		"warnings":            {"build", "--check", dir("Dockerfile", "FROM scratch\nMAINTAINER "+evil+"\nENV a "+evil+"\nLABEL x=$"+evil)},
		"call":                {"build", "--call=check", dir("Dockerfile", "FROM scratch AS A"+"\nCMD "+evil)},
		"target":              {"build", "--check", "--target", evil, good},
		"ignore file":         {"build", "--check", dir("Dockerfile", "FROM scratch\n", ".dockerignore", "["+evil)},
		"check of a registry": {"build", "--check", dir("Dockerfile", "FROM "+host+"/denied\n")},
		"inspect":             {"inspect", host + "/image"},
		"inspect JSON":        {"inspect", "--format=json", host + "/image"},
		"inspect denied":      {"inspect", host + "/denied"},
		"inspect a page":      {"inspect", host + "/page"},
		"inspect a type":      {"inspect", host + "/type"},
		"inspect an archive":  {"inspect", "docker-archive:" + archive},
		"copy":                {"copy", host + "/denied", host + "/x"},
		"push":                {"push", archive, host + "/x"},
		"registries.conf":     {"inspect", "--registries-conf", filepath.Join(dir("r.conf", evil), "r.conf"), "x"},
		"authorities":         {"inspect", "--registry-ca", archive, "x"},
		"proxy":               {"proxy", "--target-ref", evil},
		"serve":               {"registry", "serve", "--listen", evil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var shown bytes.Buffer
			if err := run(t.Context(), args, strings.NewReader(""), &shown, &shown); err != nil {
				report(&shown, err)
			}
			if shown.Len() == 0 {
				t.Error("nothing is shown")
			}
			for _, r := range shown.String() {
				if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
					t.Fatalf("%q is in %q", r, shown.String())
				}
			}
		})
	}
}

// hostileRegistry serves manifests and errors that hold text. It returns its host.
func hostileRegistry(t *testing.T, text string) string {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	const d = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":%s,`+
		`"config":{"mediaType":%s,"digest":%q,"size":2},"layers":[{"mediaType":%s,"digest":%q,"size":2}],"annotations":{%s:%s}}`,
		quoted, quoted, d, quoted, d, quoted, quoted)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/denied/"):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":%s,"message":%s}]}`, quoted, quoted)
		case strings.Contains(r.URL.Path, "/page/"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, text)
		case strings.Contains(r.URL.Path, "/type/"):
			w.Header().Set("Content-Type", "application/evil\u009b")
			fmt.Fprintf(w, `{"mediaType":%s}`, quoted)
		case strings.Contains(r.URL.Path, "/image/manifests/"):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			fmt.Fprint(w, manifest)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}
