// Command vuln looks for known vulnerabilities in what bob calls, with the Go project's
// database at the version that .ci/vuln.mod names. It runs in the module's directory
// and fails for a vulnerability of a module. What the standard library has depends on the
// machine's Go: it is printed and fails nothing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"golang.org/x/vuln/scan"
)

const database = "golang.org/x/vulndb"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vuln:", err)
		os.Exit(1)
	}
}

// finding is what govulncheck's JSON says of one vulnerability in one place.
type finding struct {
	OSV   string `json:"osv"`
	Fixed string `json:"fixed_version"`
	Trace []struct {
		Module, Version, Package, Function string
	} `json:"trace"`
}

// run scans with govulncheck's arguments.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	dir, err := exec.CommandContext(ctx, "go", "list", "-modfile=.ci/vuln.mod", "-m", "-f", "{{.Dir}}", database).Output()
	if err != nil {
		return fmt.Errorf("find %s: %w", database, err)
	}
	cmd := scan.Command(ctx, append([]string{"-format=json", "-db=file://" + strings.TrimSpace(string(dir)) + "/data/osv"}, args...)...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { w.CloseWithError(cmd.Wait()) }()
	called, err := read(r)
	if err != nil {
		return err
	}
	bad := 0
	for _, f := range called {
		at := f.Trace[0]
		if at.Module != "stdlib" {
			bad++
		}
		fmt.Fprintf(stdout, "%s in %s of %s %s, fixed in %s: https://pkg.go.dev/vuln/%[1]s\n", f.OSV, at.Package, at.Module, at.Version, f.Fixed)
	}
	if bad > 0 {
		return fmt.Errorf("%d known vulnerabilities in modules that bob calls", bad)
	}
	if len(called) > 0 {
		fmt.Fprintln(stdout, "All of them are in the standard library: a newer Go mends them.")
	}
	return nil
}

// read returns the vulnerabilities in what is called, one for each module.
func read(r io.Reader) ([]finding, error) {
	var called []finding
	scanned := false
	for d := json.NewDecoder(r); ; {
		var m struct {
			Finding *finding        `json:"finding"`
			SBOM    json.RawMessage `json:"SBOM"`
		}
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		scanned = scanned || m.SBOM != nil
		f := m.Finding
		if f == nil || len(f.Trace) == 0 || f.Trace[0].Function == "" {
			continue
		}
		if !slices.ContainsFunc(called, func(c finding) bool { return c.OSV == f.OSV && c.Trace[0].Module == f.Trace[0].Module }) {
			called = append(called, *f)
		}
	}
	if !scanned {
		return nil, errors.New("govulncheck says nothing of what it has scanned")
	}
	return called, nil
}
