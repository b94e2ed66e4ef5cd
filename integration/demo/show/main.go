// Command show prints the layers of an image and how long each step of its
// build took: show REFERENCE BUILD-LOG.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "show:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: show REFERENCE BUILD-LOG")
	}
	if err := layers(args[0], w); err != nil {
		return err
	}
	return steps(args[1], w)
}

func layers(ref string, w io.Writer) error {
	parsed, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return err
	}
	image, err := remote.Image(parsed)
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		return fmt.Errorf("read manifest of %s: %w", ref, err)
	}
	fmt.Fprintln(w, "layers:")
	for _, l := range manifest.Layers {
		fmt.Fprintf(w, "  %s %9d bytes\n", l.Digest, l.Size)
	}
	return nil
}

var (
	started = regexp.MustCompile(`^(#\d+) (\[.*)$`)
	ended   = regexp.MustCompile(`^(#\d+) (?:DONE (\S+)|(CACHED))$`)
)

// steps pairs the first line of each vertex of a plain log with its last.
func steps(log string, w io.Writer) error {
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	names := map[string]string{}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "steps:")
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := started.FindStringSubmatch(lines.Text()); m != nil && names[m[1]] == "" {
			names[m[1]] = m[2]
		}
		if m := ended.FindStringSubmatch(lines.Text()); m != nil && names[m[1]] != "" {
			fmt.Fprintf(table, "  %s%s\t%s\n", m[2], m[3], names[m[1]])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", log, err)
	}
	return table.Flush()
}
