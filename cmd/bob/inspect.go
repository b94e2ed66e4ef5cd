package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// inspectConfig is bob inspect as the command line has it.
type inspectConfig struct {
	platform       cli.Text
	format         string
	raw, quiet     bool
	unpacked       unpackLimit
	registries     registryConfig
	stdout, stderr io.Writer
}

func newInspectCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &inspectConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob inspect", flag.ContinueOnError)
	fs.Var(&cfg.platform, "platform", "show the image for `os/arch[/variant]` of an index")
	fs.StringVar(&cfg.format, "format", "text", "`format` of what is printed, text or json")
	fs.BoolVar(&cfg.raw, "raw", false, "print the manifest or index byte for byte and nothing else")
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	cfg.unpacked.register(fs)
	fs.BoolVar(&cfg.quiet, "quiet", false, "print nothing but the result, and errors")
	return &ffcli.Command{
		Name:       "inspect",
		ShortUsage: "bob inspect [flags] <reference, archive or layout>",
		ShortHelp:  "Show what an image or an index is made of",
		LongHelp: "Show the platforms of an index, or the config, layers and history of an image, without downloading a layer.\n" +
			"Names are those of bob copy.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *inspectConfig) exec(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return cli.Errorf("bob inspect takes one name")
	}
	if err := transfer.CheckPlace(args[0]); err != nil {
		return cli.Errorf("%v", err)
	}
	var errFormat error
	if cfg.format != "text" && cfg.format != "json" {
		errFormat = cli.Wrong("format", cfg.format, "want text or json")
	}
	p, err := optionalPlatform(cfg.platform)
	o := transfer.InspectOptions{Platform: p, TempDir: os.TempDir()}
	var errLimit error
	o.MaxUnpacked, errLimit = cfg.unpacked.bytes(o.TempDir)
	if err := errors.Join(errFormat, errLimit, err, cfg.registries.check(ctx)); err != nil {
		return err
	}
	found, err := transfer.Inspect(ctx, cfg.registries.client(notices(cfg.stderr, cfg.quiet)), args[0], o)
	if err != nil {
		return interrupted(ctx, err)
	}
	if cfg.raw {
		_, err := cfg.stdout.Write(found.Raw)
		return err
	}
	v, err := newInspected(found)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", args[0], err)
	}
	if cfg.format == "json" {
		return terminal.WriteJSON(cfg.stdout, v)
	}
	return v.writeText(cfg.stdout)
}

// inspected is what is shown, in JSON by these names.
type inspected struct {
	Reference    string                           `json:"reference"`
	Digest       digest.Digest                    `json:"digest,omitempty"`
	MediaType    string                           `json:"mediaType"`
	ArtifactType string                           `json:"artifactType,omitempty"`
	ID           digest.Digest                    `json:"id,omitempty"` // of the config
	Platform     string                           `json:"platform,omitempty"`
	Created      *time.Time                       `json:"created,omitempty"`
	Config       *dockerspec.DockerOCIImageConfig `json:"config,omitempty"`
	Layers       []inspectedLayer                 `json:"layers,omitempty"`
	History      []ocispec.History                `json:"history,omitempty"`
	Manifests    []inspectedManifest              `json:"manifests,omitempty"` // of an index
	Subject      *ocispec.Descriptor              `json:"subject,omitempty"`
	Annotations  map[string]string                `json:"annotations,omitempty"`
}

// inspectedLayer is a layer, with the history entry that made it if that can be
// told.
type inspectedLayer struct {
	ocispec.Descriptor
	DiffID    digest.Digest `json:"diffID,omitempty"`
	CreatedBy string        `json:"createdBy,omitempty"`
}

// inspectedManifest is an entry of an index.
type inspectedManifest struct {
	ocispec.Descriptor
	Platform string `json:"platform,omitempty"` // in place of the descriptor's
}

func newInspected(found *transfer.Inspection) (*inspected, error) {
	v := &inspected{Reference: found.Reference, Digest: found.Digest, MediaType: found.MediaType}
	if index := found.Index; index != nil {
		v.ArtifactType, v.Subject, v.Annotations = index.ArtifactType, index.Subject, index.Annotations
		for _, d := range index.Manifests {
			m := inspectedManifest{Descriptor: d}
			if d.Platform != nil {
				m.Platform = platforms.FormatAll(*d.Platform)
			}
			v.Manifests = append(v.Manifests, m)
		}
		return v, nil
	}
	m := found.Manifest
	v.ArtifactType, v.Subject, v.Annotations, v.ID = m.ArtifactType, m.Subject, m.Annotations, m.Config.Digest
	for _, d := range m.Layers {
		v.Layers = append(v.Layers, inspectedLayer{Descriptor: d})
	}
	if found.Config == nil {
		if v.ArtifactType == "" {
			v.ArtifactType = m.Config.MediaType
		}
		return v, nil
	}
	var config dockerspec.DockerOCIImage
	if err := json.Unmarshal(found.Config, &config); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if config.OS != "" {
		v.Platform = platforms.FormatAll(config.Platform)
	}
	v.Created, v.Config, v.History = config.Created, &config.Config, config.History
	made := slices.DeleteFunc(slices.Clone(config.History), func(h ocispec.History) bool { return h.EmptyLayer })
	for i := range v.Layers {
		if len(config.RootFS.DiffIDs) == len(v.Layers) {
			v.Layers[i].DiffID = config.RootFS.DiffIDs[i]
		}
		if len(made) == len(v.Layers) {
			v.Layers[i].CreatedBy = made[i].CreatedBy
		}
	}
	return v, nil
}

// writeText writes it for people.
func (v *inspected) writeText(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	field := func(name string, values ...string) {
		for _, value := range values {
			if value != "" {
				fmt.Fprintf(tw, "%s\t%s\n", name, terminal.Escape(value))
				name = ""
			}
		}
	}
	field("Reference", v.Reference)
	field("Digest", v.Digest.String())
	field("Media type", v.MediaType)
	field("Artifact type", v.ArtifactType)
	field("Image ID", v.ID.String())
	field("Platform", v.Platform)
	if v.Created != nil {
		field("Created", v.Created.Format(time.RFC3339))
	}
	if v.Subject != nil {
		field("Subject", v.Subject.Digest.String())
	}
	if v.Config != nil {
		v.writeConfig(field)
	}
	field("Annotations", pairs(v.Annotations)...)
	_ = tw.Flush() // to a strings.Builder
	v.writeLists(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (v *inspected) writeConfig(field func(string, ...string)) {
	c := v.Config
	field("Entrypoint", words(c.Entrypoint))
	field("Cmd", words(c.Cmd))
	field("User", c.User)
	field("Working dir", c.WorkingDir)
	field("Stop signal", c.StopSignal)
	if c.Healthcheck != nil {
		field("Healthcheck", words(c.Healthcheck.Test))
	}
	field("Env", c.Env...)
	field("Ports", slices.Sorted(maps.Keys(c.ExposedPorts))...)
	field("Volumes", slices.Sorted(maps.Keys(c.Volumes))...)
	field("Labels", pairs(c.Labels)...)
}

// writeLists writes what an index, or an image, is made of.
func (v *inspected) writeLists(b *strings.Builder) {
	if len(v.Manifests) > 0 {
		b.WriteString("\nManifests\n")
	}
	for _, m := range v.Manifests {
		what := m.Platform
		if of := m.Annotations["vnd.docker.reference.digest"]; of != "" {
			what = m.Annotations["vnd.docker.reference.type"] + " of " + of
		} else if what == "" {
			what = m.MediaType
		}
		fmt.Fprintf(b, "  %s  %s\n", terminal.Escape(m.Digest.String()), terminal.Escape(what))
	}
	if len(v.Layers) > 0 {
		var size int64
		for _, l := range v.Layers {
			size += l.Size
		}
		fmt.Fprintf(b, "\nLayers (%d, %s)\n", len(v.Layers), units.HumanSize(float64(size)))
	}
	for _, l := range v.Layers {
		fmt.Fprintf(b, "  %s  %8s  %s\n", terminal.Escape(l.Digest.String()), units.HumanSize(float64(l.Size)), terminal.Escape(l.MediaType))
		if l.CreatedBy != "" {
			fmt.Fprintf(b, "      %s\n", terminal.Escape(l.CreatedBy))
		}
	}
	if len(v.History) > 0 {
		b.WriteString("\nHistory\n")
	}
	for _, h := range v.History {
		at, what := strings.Repeat(" ", len(time.DateTime)), "layer"
		if h.Created != nil {
			at = h.Created.UTC().Format(time.DateTime)
		}
		if h.EmptyLayer {
			what = "-"
		}
		text := h.CreatedBy
		if text == "" {
			text = h.Comment
		}
		fmt.Fprintf(b, "  %s  %-5s  %s\n", at, what, terminal.Escape(text))
	}
}

// words writes a command as a Dockerfile's JSON form does.
func words(command []string) string {
	if len(command) == 0 {
		return ""
	}
	quoted := make([]string, len(command))
	for i, word := range command {
		quoted[i] = `"` + strings.ReplaceAll(word, `"`, `\"`) + `"`
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// pairs returns the entries of m in order, as name=value.
func pairs(m map[string]string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, name+"="+m[name])
	}
	return all
}
