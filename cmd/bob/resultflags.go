package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// resultFlags name the files that describe the image.
type resultFlags struct{ iidfile, metadata string }

func (f *resultFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.iidfile, "iidfile", "", "write the image ID (the config's digest) to `file`")
	fs.StringVar(&f.metadata, "metadata-file", "", "write what was built to `file`, as JSON")
}

// check checks that the files can be written, since they are written after the push.
func (f *resultFlags) check() error {
	var wrong []error
	for _, f := range [][2]string{{"iidfile", f.iidfile}, {"metadata-file", f.metadata}} {
		if f[1] == "" {
			continue
		}
		if err := unix.Access(filepath.Dir(f[1]), unix.W_OK); err != nil {
			wrong = append(wrong, cli.About(f[0], "", cli.Errorf("--%s %s: can't be written to its directory: %v", f[0], f[1], err)))
		}
	}
	return errors.Join(wrong...)
}

// announce writes the result to the files that the flags name, and the digest to w. The
// image has the tags, whether it was pushed or not. If no image was made, there is no
// ID and no digest to write.
func (f *resultFlags) announce(w io.Writer, r *executor.Result, o *executor.Options, tags []string) error {
	id := r.Config
	if id == "" {
		id = r.Manifest.Digest // several platforms have no config in common
	}
	if f.iidfile != "" && id != "" {
		if err := os.WriteFile(f.iidfile, []byte(id.String()), 0o644); err != nil { //nolint:gosec // not secret
			return fmt.Errorf("--iidfile: %w", err)
		}
	}
	if f.metadata != "" {
		if err := f.writeMetadata(r, o, tags); err != nil {
			return fmt.Errorf("--metadata-file: %w", err)
		}
	}
	if r.Manifest.Digest == "" || slices.ContainsFunc(o.Outputs, func(o image.Output) bool { return o.Writer != nil }) {
		return nil
	}
	_, err := fmt.Fprintln(w, r.Manifest.Digest)
	return err
}

// writeMetadata writes the file of --metadata-file, with buildx's names.
func (f *resultFlags) writeMetadata(r *executor.Result, o *executor.Options, tags []string) error {
	m := map[string]any{}
	if r.Manifest.Digest != "" {
		m["containerimage.digest"] = r.Manifest.Digest
		m["containerimage.descriptor"] = r.Manifest
	}
	if r.Config != "" {
		m["containerimage.config.digest"] = r.Config
		layers := make([]ocispec.Descriptor, 0, len(r.Layers))
		for _, l := range r.Layers {
			layers = append(layers, l.Descriptor)
		}
		m["bob.layers"] = layers
	}
	if o.ExplainCache {
		m["bob.cache"] = r.Cache
	}
	if names := cmp.Or(strings.Join(o.Tags, ","), strings.Join(tags, ",")); names != "" {
		m["image.name"] = names
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(f.metadata, append(data, '\n'), 0o644) //nolint:gosec // not secret
}
